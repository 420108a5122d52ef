"""quanto: what the library saves is sound, and what is broken in it is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from compressed_checkpoints import raw, values
from judging import errors, flagged, gather, judge
from optimum import quanto

Q = "model.layers.0.self_attn.q_proj"
TYPES = ("qint8", "qint4", "qint2", "qfloat8")


def saved(path: Path, weights: str = "qint8", *, in_config: bool = False) -> Path:
    """A tiny checkpoint whose linear layers quanto quantized.

    Args:
        path: The directory, made here.
        weights: quanto's name of the type.
        in_config: Whether config.json declares it, instead of quanto's own file.
    """
    checkpoints.build(path, None, layers=2)
    tensors, types = {}, {}
    for name, tensor in checkpoints.read_safetensors(path / "model.safetensors").items():
        module, _, _ = name.rpartition(".")
        if not module.endswith("_proj"):
            tensors[name] = tensor
            continue
        stored = values(tensor)
        model = torch.nn.Sequential(
            torch.nn.Linear(stored.shape[1], stored.shape[0], bias=False, dtype=torch.bfloat16)
        )
        model[0].weight.data = stored
        quanto.quantize(model, weights=getattr(quanto, weights))
        quanto.freeze(model)
        for suffix, value in model.state_dict().items():
            tensors[f"{module}{suffix.removeprefix('0')}"] = raw(value)
        types[module] = quanto.quantization_map(model)["0"]
    checkpoints.write_safetensors(path / "model.safetensors", tensors)
    if in_config:
        declared = {"quant_method": "quanto", "weights": weights[1:], "activations": None}
        edit_json(path, "config.json", lambda c: c.update(quantization_config=declared))
    else:
        checkpoints.write_json(path / "quanto_qmap.json", types)
    return path


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("weights", TYPES)
def test_what_the_library_saves_is_sound(weights: str, in_config: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "m", weights, in_config=in_config)
    result = judge(path)
    assert result.findings == ()
    assert result.format == "quanto"
    assert [name.removeprefix("q")[:4] for name in result.algorithms] == [weights[1:5]]
    assert not any("only in part" in skipped.reason for skipped in result.skipped)
    layers = gather(path).layers
    assert len(layers) == 14
    for layer in layers:
        assert layer.expected.keys() == layer.tensors.keys()


def without(suffix: str) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, lambda t: t.pop(f"{Q}.{suffix}"))


def stored(suffix: str, tensor: checkpoints.Tensor) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, lambda t: t.update({f"{Q}.{suffix}": tensor}))


def mapped(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda path: edit_json(path, "quanto_qmap.json", change)


def left_plain(path: Path) -> None:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(f"{Q}.")]:
            del tensors[name]
        tensors[f"{Q}.weight"] = checkpoints.bf16((64, 64))

    edit_tensors(path, change)


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no scale": ("qint8", without("weight._scale"), "missing-scale"),
    "no shift": ("qint4", without("weight._shift"), "missing-scale"),
    "no weight": ("qint8", without("weight._data"), "orphan-scale"),
    "scale of another shape": (
        "qint4",
        stored("weight._scale", checkpoints.f32((3, 1))),
        "scale-shape",
    ),
    "another dtype": (
        "qint8",
        stored("weight._data", ("F8_E4M3", (64, 64), bytes(4096))),
        "weight-dtype",
    ),
    "a NaN scale": (
        "qint8",
        stored("weight._scale", checkpoints.f32((64, 1), float("nan"))),
        "scale-not-finite",
    ),
    "not in the map": ("qint8", mapped(lambda v: v.pop(Q)), "excluded-but-quantized"),
    "a type that does not exist": (
        "qint8",
        mapped(lambda v: v[Q].update(weights="qint3")),
        "unknown-algo",
    ),
    "left plain": ("qint8", left_plain, "unquantized-not-excluded"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_found(name: str, tmp_path: Path) -> None:
    weights, break_it, rule = BROKEN[name]
    path = saved(tmp_path / "m", weights)
    break_it(path)
    assert rule in flagged(path)


def test_an_absurd_map_is_no_crash(tmp_path: Path) -> None:
    path = saved(tmp_path / "m")
    for value in ({Q: []}, {Q: {"weights": []}}, {Q: {"weights": {}, "activations": 3}}):
        (path / "quanto_qmap.json").write_text(json.dumps(value))
        assert errors(path) == {"excluded-but-quantized"}
    for text in ("", "[]", "[" * 100_000, '{"weights": 1e999}'):
        (path / "quanto_qmap.json").write_text(text)
        judge(path)
