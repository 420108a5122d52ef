"""Quantize a checkpoint with bitsandbytes and save it.

    python examples/bitsandbytes_save.py REFERENCE OUTPUT --kind nf4

Save it before the model has generated anything: on a CPU, bitsandbytes lays four-bit weights out
anew at the first forward pass.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

KINDS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "fp4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def main() -> None:
    """Load quantized, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("reference", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="nf4")
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(
        options.reference, dtype="auto", quantization_config=KINDS[options.kind]
    )
    model.save_pretrained(options.output)
    AutoTokenizer.from_pretrained(options.reference).save_pretrained(options.output)


if __name__ == "__main__":
    main()
