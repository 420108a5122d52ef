"""Decoded weights are ModelOpt's own dequantization of the exported tensors, bit for bit."""

import math
import tempfile
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelopt_own import assert_decodes
from tiny_models import export, llama, opened

from gate import activations
from gate.codes import E2M1, E2M1_PAIRS, E4M3, INT4_PAIRS, LOOKUP_CHUNK, decode_float, lookup
from gate.errors import GateError, UnknownFormatError
from gate.quantization import Role, Scheme

PARTIAL = {
    "FP8_DEFAULT": "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_2D_BLOCKWISE_WEIGHT_ONLY": "FP8_PB_WO",
}


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", PARTIAL)
def test_equals_modelopts_dequantization(recipe: str, tmp_path: Path) -> None:
    """A random model whose sides are no multiples of 128; test_modelopt_exports has the others."""
    export(llama(576, 320), recipe, tmp_path / "export")
    assert assert_decodes(tmp_path / "export") == {PARTIAL[recipe]}


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("recipe", "algorithm"),
    [("NVFP4_AWQ_LITE", "NVFP4_AWQ"), ("NVFP4_SVDQUANT_DEFAULT", "NVFP4_SVD")],
)
def test_equals_modelopts_dequantization_of_smoothed_weights(
    recipe: str, algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModelOpt calibrates these with a CUDA kernel, for which the same arithmetic stands in."""
    monkeypatch.setattr(tensor_quant(), "dynamic_block_quantize_op", fake_nvfp4)
    export(llama(), recipe, tmp_path / "export")
    assert assert_decodes(tmp_path / "export") == {algorithm}


def tensor_quant() -> Any:
    from modelopt.torch.quantization import tensor_quant

    return tensor_quant


def fake_nvfp4(x: Any, block_size: int, amax: Any, *_: int) -> Any:
    """What ModelOpt's kernel computes."""
    scheme = Scheme(4, "float", "tensor_group", group_size=block_size, dynamic=True)
    return activations.fake_quantize(x, scheme, amax.float().amax() / 2688, "modelopt")


@pytest.mark.model
@pytest.mark.parametrize("name", ["fp8", "nvfp4"])
def test_equals_modelopts_dequantization_of_a_trained_model(name: str, export: Any) -> None:
    """All 210 layers of SmolLM2."""
    assert assert_decodes(export(name)) == {name.upper()}


def test_codes_are_the_published_ones() -> None:
    """Against torch's FP8 and the list of E2M1 values; 0x7F is NaN."""
    import torch

    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(np.float32(E4M3), theirs, equal_nan=True)
    assert E2M1[:8] == (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    assert E2M1_PAIRS[0xF1] == (0.5, -6.0), "the low nibble is the first value"
    assert INT4_PAIRS[0x87] == (7.0, -8.0) and INT4_PAIRS[0x0F] == (-1.0, 0.0)


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


def test_a_smoothing_that_the_algorithm_does_not_know_is_refused(tmp_path: Path) -> None:
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


SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 16, 32, 64, 128]), max_size=3).map(tuple)
DTYPES = st.sampled_from(["F8_E4M3", "U8", "I8", "F32", "BF16", "F8_E8M0"])


@settings(deadline=None, max_examples=60)
@given(
    algo=st.sampled_from(checkpoints.ALGORITHMS),
    role=st.sampled_from(["weight", "weight_scale", "weight_scale_2", "pre_quant_scale"]),
    dtype=DTYPES,
    shape=SHAPES,
    codes=st.integers(0, 255),
)
def test_any_tensor_is_decoded_or_refused(
    algo: str, role: str, dtype: str, shape: tuple[int, ...], codes: int
) -> None:
    """A tensor of another dtype, shape or content: the weight's own shape, or a `GateError`."""
    size = math.prod(shape) * {"F32": 4, "BF16": 2}.get(dtype, 1)
    with tempfile.TemporaryDirectory() as directory:
        path = checkpoints.build(Path(directory) / "export", algo, layers=1)
        name = f"model.layers.0.mlp.down_proj.{role}"
        hostile = (dtype, shape, bytes([codes]) * size)
        checkpoints.edit_tensors(path, lambda tensors: tensors.update({name: hostile}))
        checkpoint, form = opened(path)
        assert form is not None
        layer = next(each for each in form.layers(checkpoint) if "down_proj" in each.name)
        with np.errstate(all="ignore"):
            try:
                decoded = form.dequantize(layer, np)
            except GateError as error:
                assert layer.name in str(error)
            else:
                assert decoded.shape == layer.shape and decoded.dtype == np.float32
                assert layer.tensors[Role.WEIGHT].dtype in layer.expected[Role.WEIGHT].dtypes
