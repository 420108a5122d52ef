"""How near the reference backend is to ModelOpt, and what a last-bit change of rounding does.

Run: python benchmarks/rounding_floor.py REFERENCE FP8_EXPORT TEXT

REFERENCE is the unquantized model of which FP8_EXPORT was made. ModelOpt's quantized model in
memory is given our decoded weights and the stored amax of every input; then three figures are
taken on the first windows of TEXT: the KL divergence to it with ModelOpt's order of rounding,
the share of activation codes that the runtime's order changes, and the KL that this alone causes.
"""

import argparse
from pathlib import Path
from typing import Any

from gate import drift
from gate.activations import E4M3_MAX
from gate.backends.hf import Hf, kl_divergence
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify
from gate.settings import DEFAULT, PerplexityText

WINDOW, WINDOWS = 500, 6


def modelopts_model(reference: Path, ours: Hf) -> Any:
    """ModelOpt's fake-quantized model with our weights and amax; weight quantizers off."""
    import modelopt.torch.quantization as mtq
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(reference, dtype="auto")
    calibration = torch.arange(64)[None]
    model = mtq.quantize(model, mtq.FP8_DEFAULT_CFG, lambda m: m(calibration))
    with torch.inference_mode():
        for parameter, quantizer in ours.quantizers.items():
            module = model.get_submodule(parameter.removesuffix(".weight"))
            module.weight_quantizer.disable()
            module.weight.copy_(ours.model.get_parameter(parameter))
            # Its own setter would round to the model's bfloat16.
            module.input_quantizer._amax = quantizer.input_scale * E4M3_MAX
    return model


def main() -> None:
    """Measure and print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name in ("reference", "export", "text"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.export, CONTAINERS)
    text = PerplexityText(file=str(arguments.text.absolute()), window=WINDOW, windows=WINDOWS)
    with Hf(checkpoint, identify(checkpoint, FORMATS), harness=None, settings=DEFAULT) as ours:
        windows = drift.text_windows(ours, text, drift.read_text(text, Path()))
        theirs = modelopts_model(arguments.reference, ours)
        kl = {"modelopt": 0.0, "runtime": 0.0}
        for window in windows:
            with torch.inference_mode():
                expected = theirs(torch.from_numpy(window[None])).logits[0]
                for ours.rounding.order in kl:
                    logits = ours.model(torch.from_numpy(window[None])).logits[0]
                    kl[ours.rounding.order] += kl_divergence(expected, logits) / windows.size
        floor = ours.rounding_floor(windows)
    assert floor is not None, "an FP8 export has quantized inputs"
    print("| figure | value | must be |\n|---|--:|--:|")
    print(f"| tokens | {windows.size} | |")
    print(f"| mean KL to ModelOpt, its order of rounding | {kl['modelopt']:.2e} | <= 1e-5 |")
    print(f"| mean KL to ModelOpt, the runtime's order | {kl['runtime']:.4f} | |")
    print(f"| activation codes that the order changes | {floor.codes_changed:.4%} | <= 0.5 % |")
    print(f"| rounding floor: mean KL of the two orders | {floor.kl:.4f} | |")
    if not (kl["modelopt"] <= 1e-5 and floor.codes_changed <= 0.005):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
