"""ModelOpt's own dequantization of what it exported, and whether ours is the same."""

from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import opened

from gate.quantization import QuantizedLayer, Role


def assert_decodes(path: Path) -> set[str]:
    """Every quantized layer of an export is decoded as ModelOpt does it, by numpy and by torch.

    Bit for bit, but for the sign of zero. The product of low-rank factors is added in an order
    that differs between libraries.

    Returns:
        The algorithms, upper case.
    """
    import torch
    from safetensors.torch import load_file

    checkpoint, form = opened(path)
    assert form is not None
    stored = load_file(path / "model.safetensors")
    layers = [layer for layer in form.layers(checkpoint) if layer.packed]
    codes = {torch.uint8, torch.int8, torch.float8_e4m3fn}
    assert {layer.tensors[Role.WEIGHT].name for layer in layers} == {
        name
        for name, tensor in stored.items()
        if tensor.dtype in codes and not name.endswith("_scale")
    }
    for layer in layers:
        theirs = modelopts_own(layer, stored)
        close = 1e-6 * float(theirs.abs().max()) if Role.LORA_A in layer.tensors else 0
        for xp in (np, torch):
            ours = torch.as_tensor(form.dequantize(layer, xp))
            assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape), layer.name
            assert (ours - theirs).abs().max() <= close, layer.name
            assert ours.isfinite().all()
    assert all(form.algorithms(checkpoint).values())
    return {layer.algo.upper() for layer in layers}


def modelopts_own(layer: QuantizedLayer, stored: dict[str, Any]) -> Any:
    """float32, (..., out_features, in_features): what multiplies an input that is not smoothed."""
    found = {role: stored[info.name] for role, info in layer.tensors.items()}
    if layer.tensors[Role.WEIGHT].name == layer.name:
        # All experts in one tensor: quantized along the last axis, then transposed, or not.
        along_inputs = layer.algo.upper() in {"NVFP4", "W4A16_NVFP4"}
        if along_inputs:
            for role in (Role.WEIGHT, Role.WEIGHT_SCALE):
                found[role] = found[role].mT.contiguous()
        blocks = layer.algo.upper().startswith("FP8_PB")
        if blocks:
            found[Role.WEIGHT] = found[Role.WEIGHT].mT.contiguous()
        values = _plain(layer.algo.upper(), found)
        return values if along_inputs or blocks else values.mT
    values = _plain(layer.algo.upper(), found)
    if Role.LORA_A in found:
        values = values + found[Role.LORA_B].float() @ found[Role.LORA_A].float()
    if Role.PRE_QUANT_SCALE in found:
        values = values * found[Role.PRE_QUANT_SCALE].float()
    return values


def _plain(algo: str, found: dict[Role, Any]) -> Any:
    """By the class that made it, or by the formula where there is none."""
    import torch
    from modelopt.torch.export import quant_utils
    from modelopt.torch.quantization import qtensor

    weight, scale = found[Role.WEIGHT], found[Role.WEIGHT_SCALE]
    own: Any
    whole = torch.Size((*weight.shape[:-1], 2 * weight.shape[-1]))
    if "NVFP4" in algo:
        return qtensor.NVFP4QTensor(whole, torch.float32, weight).dequantize(
            torch.float32,
            scale=scale,
            double_scale=found[Role.WEIGHT_GLOBAL_SCALE],
            block_sizes={-1: whole[-1] // scale.shape[-1]},
        )
    if "MXFP4" in algo:
        own = qtensor.MXFP4QTensor(whole, torch.float32, weight)
        return own.dequantize(torch.float32, scale=scale, block_sizes={-1: 32})
    if algo == "MXFP8":
        own = qtensor.MXFP8QTensor(weight.shape, torch.float32, weight)
        return own.dequantize(torch.float32, scale=scale)
    if algo.startswith("W8A"):
        name = quant_utils.QUANTIZATION_INT8_SQ
        return quant_utils.from_quantized_weight(weight, scale, name, torch.float32)
    if algo.endswith("AWQ"):
        size = weight.shape[1] // scale.shape[1]
        low, high = (weight << 4).view(torch.int8) >> 4, weight.view(torch.int8) >> 4
        codes = torch.stack((low, high), 1).reshape(-1, weight.shape[1])
        values = codes * scale.repeat_interleave(size, 1)
        # There is no class for this layout: its packer must give the same bytes again.
        assert torch.equal(quant_utils.pack_int4_in_uint8(values, scale, size), weight)
        return values
    own = qtensor.FP8QTensor(weight.shape, torch.float32, weight)
    if algo.startswith("FP8_PB"):
        if weight.dim() == 3:
            pairs = zip(weight, scale, strict=True)
            one = ({Role.WEIGHT: each, Role.WEIGHT_SCALE: blocks} for each, blocks in pairs)
            return torch.stack([_plain(algo, expert) for expert in one])
        sizes = {-1: 128, -2: 128}
        scale = scale.reshape([-(-side // 128) for side in weight.shape])
        return own.dequantize(torch.float32, scale=scale, block_sizes=sizes)
    if scale.dim():
        scale = scale.reshape(-1, *(1,) * (weight.dim() - 1))
    return own.dequantize(torch.float32, scale=scale)
