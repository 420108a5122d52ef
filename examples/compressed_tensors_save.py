"""Quantize a checkpoint to one of compressed-tensors' schemes, rounded to nearest, and save it.

    python examples/compressed_tensors_save.py REFERENCE OUTPUT --scheme W8A8

W8A8, FP8_DYNAMIC, W4A16 and the other presets of the library whose inputs need no calibration.
llm-compressor writes the same layouts with better rounding.
"""

import argparse
from pathlib import Path

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationStatus,
    QuantizationStrategy,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoModelForCausalLM, AutoTokenizer


def extremes(
    weight: torch.Tensor, how: QuantizationArgs
) -> tuple[torch.Tensor, torch.Tensor, QuantizationArgs]:
    """The smallest and the largest value under each scale."""
    if how.strategy == QuantizationStrategy.GROUP:
        return *weight.unflatten(-1, (-1, how.group_size)).aminmax(dim=-1), how
    if how.strategy == QuantizationStrategy.TENSOR:
        weight = weight.flatten()
    return *weight.aminmax(dim=-1, keepdim=True), how


def main() -> None:
    """Load, set every weight's scale, compress, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("reference", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scheme", default="W8A8")
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.reference, dtype="auto")
    scheme = preset_name_to_scheme(options.scheme, ["Linear"])
    groups = {"group_0": scheme}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "quantization_scheme", None) is not None:
                scale, zero_point = calculate_qparams(*extremes(module.weight, scheme.weights))
                module.weight_scale.copy_(scale)
                if hasattr(module, "weight_zero_point"):
                    module.weight_zero_point.copy_(zero_point)
                module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(options.output)
    compressor.update_config(options.output)
    AutoTokenizer.from_pretrained(options.reference).save_pretrained(options.output)


if __name__ == "__main__":
    main()
