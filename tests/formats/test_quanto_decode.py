"""quanto's checkpoints are decoded as quanto decodes them, bit for bit."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors, f32
from optimum.quanto import QuantizedModelForCausalLM, qtypes
from optimum.quanto.library.extensions import get_extension
from optimum.quanto.nn import QLinear
from optimum.quanto.tensor import WeightQBitsTensor, WeightQBytesTensor
from safetensors.torch import load_file
from tiny_models import llama, opened

from gate.errors import CheckpointError, UnknownFormatError
from gate.quantization import require_decodable

TYPES = ("qint8", "qint4", "qint2", "qfloat8", "qfloat8_e4m3fn", "qfloat8_e5m2")
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """quanto's own unpacking in Python: to compile the other takes it a minute and a half."""
    in_python = partial(
        torch.ops.quanto.unpack.default._op_dk, torch._C.DispatchKey.CompositeExplicitAutograd
    )
    monkeypatch.setattr(get_extension("quanto_cpp"), "_lib", SimpleNamespace(unpack=in_python))


def saved(path: Path, weights: str, dtype: torch.dtype = torch.bfloat16, **sizes: int) -> Path:
    """A tiny Llama that quanto quantized and saved."""
    model = llama(**sizes).to(dtype)
    QuantizedModelForCausalLM.quantize(model, weights=qtypes[weights]).save_pretrained(path)
    return path


def quantos_own(name: str, shape: tuple[int, int], stored: dict[str, Any], weights: str) -> Any:
    """quanto's tensor of one layer, made of what is stored, and decoded."""
    linear = QLinear(shape[1], shape[0], weights=qtypes[weights], device="meta")
    options: dict[str, Any] = {"qtype": qtypes[weights], "axis": 0, "missing_keys": []}
    options |= {"size": linear.weight.size(), "stride": linear.weight.stride()}
    prefix = f"{name}.weight."
    if qtypes[weights].bits == 8:
        options["activation_qtype"] = None
        return WeightQBytesTensor.load_from_state_dict(dict(stored), prefix, **options).dequantize()
    options["group_size"] = linear.weight_group_size
    return WeightQBitsTensor.load_from_state_dict(dict(stored), prefix, **options).dequantize()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("weights", TYPES)
def test_equals_quantos_decoding(weights: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Groups of 96, of 64 and, as wide as the row, of 128 inputs."""
    for hidden, intermediate in ((192, 320), (128, 256)):
        path = saved(
            tmp_path / str(hidden), weights, dtype, hidden=hidden, intermediate=intermediate
        )
        stored = load_file(path / "model.safetensors")
        checkpoint, form = opened(path)
        require_decodable(checkpoint, form)
        layers = list(form.layers(checkpoint))
        assert len(layers) == 15, "the head as well"
        for layer in layers:
            theirs = quantos_own(layer.name, layer.shape, stored, weights)
            for xp in (np, torch):
                ours = torch.as_tensor(form.dequantize(layer, xp))
                assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape), layer.name
                assert torch.equal(ours.to(dtype), theirs), layer.name


def test_rounded_activations_are_not_decoded(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", "qint8")
    types = json.loads((path / "quanto_qmap.json").read_text())
    edit_json(path, "quanto_qmap.json", lambda v: v[DOWN].update(activations="qint8"))
    checkpoint, form = opened(path)
    assert DOWN in types
    with pytest.raises(UnknownFormatError, match="activations as qint8"):
        require_decodable(checkpoint, form)


def test_a_shape_that_nothing_tells(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", "qint4")
    edit_json(path, "config.json", lambda c: c.update(intermediate_size=500))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == DOWN)
    with pytest.raises(UnknownFormatError, match=f"{DOWN}.*shape"):
        form.dequantize(layer, np)


@pytest.mark.parametrize("suffix", ["weight._scale", "weight._shift"])
def test_contradictions_are_refused(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m", "qint4")
    (rows, _) = load_file(path / "model.safetensors")[f"{DOWN}.weight._scale"].shape
    edit_tensors(path, lambda t: t.update({f"{DOWN}.{suffix}": f32((rows - 1, 1))}))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == DOWN)
    with pytest.raises((CheckpointError, UnknownFormatError), match=DOWN):
        form.dequantize(layer, np)


def test_nan_stays_nan(tmp_path: Path) -> None:
    """Rounding to BF16 must not turn a NaN of any bits into a number."""
    path = saved(tmp_path / "m", "qint4")

    def change(tensors: Any) -> None:
        name = f"{DOWN}.weight._scale"
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, b"\xff\x7f" * (len(data) // 2))

    edit_tensors(path, change)
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == DOWN)
    assert np.isnan(form.dequantize(layer, np)).all()
