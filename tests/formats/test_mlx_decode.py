"""MLX's weights are decoded as MLX decodes them, bit for bit."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import edit_tensors
from quantizers import convert, mlx, packed
from tiny_models import opened

from gate.codes import E2M1, decode_float
from gate.errors import CheckpointError, UnknownFormatError
from gate.quantization import QuantizedLayer, Role, require_decodable

K = "model.layers.0.self_attn.k_proj"


def saved(path: Path, bits: int = 4, **declared: Any) -> Path:
    config = {"group_size": 32, "bits": bits, **declared}
    convert(path, mlx(bits), None, layers=1)
    checkpoints.edit_json(path, "config.json", lambda c: c.update(quantization=config))
    return path


def layer_of(path: Path) -> tuple[Any, QuantizedLayer]:
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    return form, layer


def floats(layer: QuantizedLayer, role: Role) -> np.ndarray:
    return decode_float(layer.read(role), layer.tensors[role].dtype, np)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_equals_the_definition(bits: int, tmp_path: Path) -> None:
    """code * scale + bias; both of the stored dtype, and the product too."""
    path = saved(tmp_path / "m", bits)
    checkpoint, form = opened(path)
    require_decodable(checkpoint, form)
    form, layer = layer_of(path)
    rows, columns = layer.shape
    words = layer.read(Role.WEIGHT).astype(object)
    scale, bias = (floats(layer, role) for role in (Role.WEIGHT_SCALE, Role.WEIGHT_ZERO_POINT))
    found = form.dequantize(layer, np)
    assert found.shape == (rows, columns) == (32, 64)
    for row in range(rows):
        stream = sum(int(word) << 32 * place for place, word in enumerate(words[row]))
        for column in range(columns):
            code = stream >> bits * column & (2**bits - 1)
            product = np.float16(code) * np.float16(scale[row, column // 32])
            expected = np.float32(product) + bias[row, column // 32]
            assert found[row, column] == expected


def test_the_mode_mxfp4(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", mode="mxfp4")
    codes = np.random.default_rng(0).integers(0, 16, (32, 64))
    words, scales = packed(codes, 4).view("<u4"), np.full((32, 2), 120, np.uint8)

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith((".scales", ".biases"))]:
            del tensors[name]
        tensors[f"{K}.weight"] = ("U32", words.shape, words.tobytes())
        tensors[f"{K}.scales"] = ("U8", scales.shape, scales.tobytes())

    edit_tensors(path, change)
    form, layer = layer_of(path)
    expected = np.float32(E2M1)[codes] * np.float32(2.0**-7)
    assert np.array_equal(form.dequantize(layer, np), expected)


def test_what_is_not_decoded_is_named(tmp_path: Path) -> None:
    checkpoint, form = opened(saved(tmp_path / "m", mode="nvfp4"))
    with pytest.raises(UnknownFormatError, match="MLX nvfp4 W4 g32"):
        require_decodable(checkpoint, form)


@pytest.mark.parametrize("suffix", ["scales", "biases"])
def test_contradictions_are_refused(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    edit_tensors(path, lambda t: t.update({f"{K}.{suffix}": checkpoints.bf16((32, 3))}))
    form, layer = layer_of(path)
    with pytest.raises(CheckpointError, match=K):
        form.dequantize(layer, np)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_equals_mlxs_decoding(bits: int, dtype: str, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    mx.set_default_device(mx.cpu)
    weight = mx.array(np.random.default_rng(0).normal(0, 0.05, (32, 64))).astype(getattr(mx, dtype))
    stored = dict(zip(("weight", "scales", "biases"), mx.quantize(weight, 32, bits), strict=True))
    theirs = mx.dequantize(*stored.values(), 32, bits)
    path = saved(tmp_path / "m", bits)
    mx.save_safetensors(str(tmp_path / "own.safetensors"), stored)
    own = checkpoints.read_safetensors(tmp_path / "own.safetensors")
    edit_tensors(path, lambda t: t.update({f"{K}.{name}": own[name] for name in stored}))
    form, layer = layer_of(path)
    ours = mx.array(form.dequantize(layer, np)).astype(theirs.dtype)
    assert mx.array_equal(ours, theirs)
