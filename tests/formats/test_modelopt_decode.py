"""Decoded weights are ModelOpt's own dequantization of the exported tensors, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import export, llama, opened

from gate.codes import E2M1, E2M1_PAIRS, E4M3, LOOKUP_CHUNK, decode_float, lookup
from gate.errors import UnknownFormatError
from gate.quantization import QuantizedLayer

RECIPES = {
    "FP8_DEFAULT": {"FP8"},
    "NVFP4_DEFAULT": {"NVFP4"},
    "FP8_PER_CHANNEL_PER_TOKEN": {"FP8_PER_CHANNEL_PER_TOKEN"},
    "FP8_2D_BLOCKWISE_WEIGHT_ONLY": {"FP8_PB_WO"},
    "W4A16_NVFP4": {"W4A16_NVFP4"},
    "NVFP4_MLP_WEIGHT_ONLY": {"W4A16_NVFP4"},
    "MIXED": {"FP8", "NVFP4"},
}


def modelopts_own(layer: QuantizedLayer, stored: dict[str, Any]) -> Any:
    """ModelOpt's dequantization of one layer's stored tensors, in float32."""
    import torch
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    weight, scale = stored[f"{layer.name}.weight"], stored[f"{layer.name}.weight_scale"]
    if layer.algo.upper().endswith("NVFP4"):
        shape = torch.Size((weight.shape[0], weight.shape[1] * 2))
        return NVFP4QTensor(shape, torch.float32, weight).dequantize(
            torch.float32,
            scale=scale,
            double_scale=stored[f"{layer.name}.weight_scale_2"],
            block_sizes={-1: shape[1] // scale.shape[1]},
        )
    own = FP8QTensor(weight.shape, torch.float32, weight)
    if layer.algo.upper() == "FP8_PB_WO":
        blocks = scale.reshape(scale.shape[0], scale.shape[2])
        return own.dequantize(torch.float32, scale=blocks, block_sizes={-1: 128, -2: 128})
    return own.dequantize(torch.float32, scale=scale.reshape(-1, 1) if scale.dim() else scale)


def assert_decodes(path: Path, algorithms: set[str]) -> None:
    """Every quantized layer of a checkpoint, with numpy and with torch."""
    import torch
    from safetensors.torch import load_file

    checkpoint, form = opened(path)
    assert form is not None
    stored = load_file(path / "model.safetensors")
    layers = [layer for layer in form.layers(checkpoint) if layer.packed]
    assert {layer.algo.upper() for layer in layers} == algorithms
    packed = {
        name
        for name, tensor in stored.items()
        if tensor.dtype in {torch.uint8, torch.float8_e4m3fn}
    }
    assert {f"{layer.name}.weight" for layer in layers} == {
        n for n in packed if n.endswith(".weight")
    }
    for layer in layers:
        theirs = modelopts_own(layer, stored)
        for xp in (np, torch):
            ours = torch.as_tensor(form.dequantize(layer, xp))
            assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape), layer.name
            assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32)), layer.name


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", RECIPES)
def test_equals_modelopts_dequantization(recipe: str, tmp_path: Path) -> None:
    """Seven recipes on a random model whose sides are no multiples of 128."""
    partial = recipe.startswith("FP8")
    export(llama(576, 320) if partial else llama(), recipe, tmp_path / "export")
    assert_decodes(tmp_path / "export", RECIPES[recipe])


@pytest.mark.model
@pytest.mark.parametrize("name", ["fp8", "nvfp4"])
def test_equals_modelopts_dequantization_of_a_trained_model(name: str, export: Any) -> None:
    """All 210 layers of SmolLM2."""
    assert_decodes(export(name), {name.upper()})


def test_codes_are_the_published_ones() -> None:
    """Against torch's FP8 and the list of E2M1 values; 0x7F is NaN."""
    import torch

    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(np.float32(E4M3), theirs, equal_nan=True)
    assert E2M1[:8] == (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    assert E2M1_PAIRS[0xF1] == (0.5, -6.0), "the low nibble is the first value"


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(0, 3))
def test_lookup_gives_each_code_its_value(codes: bytes, extra_axes: int) -> None:
    """Any shape, numpy and torch alike."""
    import torch

    raw = np.frombuffer(codes, np.uint8).reshape((1,) * extra_axes + (-1,))
    expected = np.float32(E4M3)[raw]
    for xp in (np, torch):
        assert np.array_equal(np.asarray(lookup(E4M3, raw, xp)), expected, equal_nan=True)


def test_lookup_crosses_its_chunks() -> None:
    """More codes than are decoded at a time."""
    raw = np.arange(LOOKUP_CHUNK + 7, dtype=np.uint8)
    assert np.array_equal(lookup(E4M3, raw, np), np.float32(E4M3)[raw], equal_nan=True)


@settings(deadline=None)
@given(st.lists(st.floats(width=16, allow_nan=False), max_size=8))
def test_stored_floats_keep_their_values(values: list[float]) -> None:
    """F16 and F32 exactly, BF16 as the upper half of a float32, from read-only memory."""
    import torch

    exact = np.array(values, np.float32)
    upper = (exact.view(np.uint32) >> 16).astype(np.uint16)
    for raw, dtype, expected in (
        (exact.astype(np.float16), "F16", exact),
        (exact, "F32", exact),
        (upper, "BF16", (upper.astype(np.uint32) << 16).view(np.float32)),
    ):
        raw.flags.writeable = False
        for xp in (np, torch):
            assert np.array_equal(np.asarray(decode_float(raw, dtype, xp)), expected)


def test_smoothed_weights_are_refused(tmp_path: Path) -> None:
    """A pre_quant_scale means that the weight was divided by it: no plain decoding is right."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        "layer.weight": torch.zeros(16, 8, dtype=torch.uint8),
        "layer.weight_scale": torch.ones(16, 1, dtype=torch.float8_e4m3fn),
        "layer.weight_scale_2": torch.ones(()),
        "layer.pre_quant_scale": torch.ones(16),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    config = '{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}'
    (tmp_path / "config.json").write_text(config)
    checkpoint, form = opened(tmp_path)
    assert form is not None
    (layer,) = form.layers(checkpoint)
    with pytest.raises(UnknownFormatError, match=r"layer.*pre_quant_scale"):
        form.dequantize(layer, np)
