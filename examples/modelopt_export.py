"""Quantize a checkpoint with NVIDIA ModelOpt, calibrated on a text, and export it as it ships.

    python examples/modelopt_export.py REFERENCE OUTPUT --recipe FP8_DEFAULT_CFG --text topics.txt

Every `*_CFG` of `modelopt.torch.quantization` is a recipe; NVFP4_DEFAULT_CFG, INT8_SMOOTHQUANT_CFG
and MXFP8_DEFAULT_CFG run on a CPU, too. Calibrate on text like the one that the model will see.
"""

import argparse
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Load, calibrate, export; the tokenizer goes with it, which the export leaves out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("reference", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--recipe", default="FP8_DEFAULT_CFG")
    parser.add_argument("--text", type=Path, required=True, help="to calibrate on")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--window", type=int, default=512, help="tokens of each")
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.reference, dtype="auto", device_map="auto")
    tokenizer = AutoTokenizer.from_pretrained(options.reference)
    tokens = tokenizer(options.text.read_text(encoding="utf-8"), return_tensors="pt").input_ids

    def calibrate(model: Any) -> None:
        for window in tokens[0].split(options.window)[: options.windows]:
            model(window[None].to(model.device))

    with torch.inference_mode():
        quantized = mtq.quantize(model, getattr(mtq, options.recipe), calibrate)
        export_hf_checkpoint(quantized, export_dir=options.output)
    tokenizer.save_pretrained(options.output)


if __name__ == "__main__":
    main()
