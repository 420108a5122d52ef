"""bitsandbytes, quantized by the library itself on the CPU; each defect has its own rule."""

import json
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Tensor, edit_json, edit_tensors
from judging import errors, flagged, gather, judge
from quantizers import convert, tensor

from gate.quantization import Role
from gate.size import size

Q = "model.layers.1.self_attn.q_proj"
OUT = "model.layers.1.self_attn.o_proj"
UP = "model.layers.0.mlp.up_proj"


@lru_cache
def _stored(kind: str, nested: bool, storage: str, shape: tuple[int, int]) -> dict[str, Tensor]:
    """What bitsandbytes keeps of a random linear layer."""
    import torch
    from bitsandbytes import nn

    torch.manual_seed(0)
    rows, columns = shape
    if kind == "int8":
        layer = nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
    else:
        layer = nn.Linear4bit(
            columns,
            rows,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=nested,
            quant_type=kind,
            quant_storage=getattr(torch, storage),
        )
    found = {}
    for name, value in layer.to("cpu").state_dict().items():
        if value.dtype == torch.bfloat16:
            found[name] = "BF16", tuple(value.shape), value.view(torch.uint8).numpy().tobytes()
        else:
            found[name] = tensor(value.numpy())
    return found


def build(
    path: Path, kind: str = "nf4", nested: bool = False, storage: str = "uint8", **more: Any
) -> Path:
    """A sound checkpoint, as transformers saves it."""
    eight = kind == "int8"
    declared = {
        "quant_method": "bitsandbytes",
        "load_in_8bit": eight,
        "load_in_4bit": not eight,
        "bnb_4bit_quant_type": "fp4" if eight else kind,
        "bnb_4bit_use_double_quant": nested,
        "bnb_4bit_quant_storage": storage,
        "llm_int8_skip_modules": None,
    }

    def quantizer(weight: np.ndarray) -> Mapping[str, Tensor]:
        return _stored(kind, nested, storage, weight.shape)

    return convert(path, quantizer, declared | more)


SOUND = {
    "NF4": ("nf4", False, "uint8"),
    "NF4, nested": ("nf4", True, "uint8"),
    "FP4": ("fp4", False, "uint8"),
    "FP4, nested": ("fp4", True, "uint8"),
    "NF4 in words of BF16": ("nf4", True, "bfloat16"),
    "INT8": ("int8", False, "uint8"),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound(tmp_path: Path, name: str) -> None:
    result = judge(build(tmp_path, *SOUND[name]))
    assert result.format == "bitsandbytes"
    assert result.algorithms == (name.partition(" ")[0].strip(","),)
    assert result.findings == ()


def test_layers(tmp_path: Path) -> None:
    layers = gather(build(tmp_path / "int8", "int8")).layer_of
    assert layers[UP].shape == (checkpoints.INTERMEDIATE, checkpoints.HIDDEN)
    layers = gather(build(tmp_path / "nf4", nested=True)).layer_of
    assert layers[UP].tensors.keys() == layers[UP].expected.keys()
    assert Role.WEIGHT_SCALE not in layers[UP].scales, "codes are no values"


@pytest.mark.parametrize("name", SOUND)
def test_parameters_are_counted(tmp_path: Path, name: str) -> None:
    build(tmp_path / "quantized", *SOUND[name])
    checkpoints.build(tmp_path / "plain", None)
    counts = []
    for path in (tmp_path / "quantized", tmp_path / "plain"):
        evidence = gather(path)
        counts.append(size(evidence.checkpoint, evidence.form).parameters)
    assert counts[0] == counts[1]


def test_older_versions_name_no_method(tmp_path: Path) -> None:
    build(tmp_path)
    edit_json(
        tmp_path, "config.json", lambda config: config["quantization_config"].pop("quant_method")
    )
    assert judge(tmp_path).format == "bitsandbytes"
    assert errors(tmp_path) == set()


def in_float(path: Path, module: str) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if name.startswith(f"{module}."):
                del tensors[name]
        tensors[f"{module}.weight"] = checkpoints.bf16((64, 64))

    edit_tensors(path, change)


@pytest.mark.parametrize("entry", [OUT, "language_model.model.layers.1.self_attn", "o_proj"])
def test_skipped_modules(tmp_path: Path, entry: str) -> None:
    """Dynamic quantizations list what they leave, under the names of another version."""
    build(tmp_path, llm_int8_skip_modules=[entry, "lm_head"])
    in_float(tmp_path, OUT)
    in_float(tmp_path, "model.layers.0.self_attn.o_proj") if entry == "o_proj" else None
    assert judge(tmp_path).findings == ()


def edited(name: str, change: Callable[[Tensor], Tensor]) -> Any:
    return lambda path: edit_tensors(
        path, lambda tensors: tensors.update({name: change(tensors[name])})
    )


def state(**changes: Any) -> Any:
    """Change what the state of one layer says."""

    def change(value: Tensor) -> Tensor:
        raw = json.dumps(json.loads(value[2]) | changes).encode()
        return "U8", (len(raw),), raw

    return edited(f"{Q}.weight.quant_state.bitsandbytes__nf4", change)


def test_a_block_of_zeros_has_scale_zero(tmp_path: Path) -> None:
    build(tmp_path)
    edited(f"{Q}.weight.absmax", lambda t: (*t[:2], bytes(4) + t[2][4:]))(tmp_path)
    assert judge(tmp_path).findings == ()


def removed(name: str) -> Any:
    return lambda path: edit_tensors(path, lambda tensors: tensors.pop(f"{Q}.{name}"))


DEFECTS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "state of another shape": ({}, state(shape=[64, 128], blocksize=128), "quant-state-disagrees"),
    "state of another block": ({}, state(blocksize=128), "quant-state-disagrees"),
    "block of no size": ({}, state(blocksize="64"), "quant-state-disagrees"),
    "nested state of another block": (
        {"nested": True},
        state(nested_blocksize=16),
        "quant-state-disagrees",
    ),
    "state of another type": ({}, state(quant_type="fp4"), "quant-state-disagrees"),
    "state without shape": ({}, state(shape=None), "quant-state-disagrees"),
    "state that is no JSON": (
        {},
        edited(f"{Q}.weight.quant_state.bitsandbytes__nf4", lambda t: ("U8", (1,), b"{")),
        "quant-state-disagrees",
    ),
    "state of absurd size": (
        {},
        edited(f"{Q}.weight.quant_state.bitsandbytes__nf4", lambda t: ("U8", (9999,), b" " * 9999)),
        "quant-state-disagrees",
    ),
    "table out of order": (
        {},
        edited(f"{Q}.weight.quant_map", lambda t: (*t[:2], t[2][::-1][:64])),
        "quant-map-unordered",
    ),
    "table out of range": (
        {"kind": "fp4"},
        edited(f"{Q}.weight.quant_map", lambda t: (*t[:2], struct.pack("<f", 4.0) + t[2][4:])),
        "quant-map-unordered",
    ),
    "nested table out of order": (
        {"nested": True},
        edited(f"{Q}.weight.nested_quant_map", lambda t: (*t[:2], t[2][4:] + t[2][:4])),
        "quant-map-unordered",
    ),
    "table with NaN": (
        {"kind": "fp4"},
        edited(
            f"{Q}.weight.quant_map",
            lambda t: (*t[:2], struct.pack("<f", float("nan")) + t[2][4:]),
        ),
        "quant-map-unordered",
    ),
    "no scales": ({}, removed("weight.absmax"), "missing-scale"),
    "no state": ({}, removed("weight.quant_state.bitsandbytes__nf4"), "missing-scale"),
    "no nested scales": ({"nested": True}, removed("weight.nested_absmax"), "missing-scale"),
    "no scales of INT8": ({"kind": "int8"}, removed("SCB"), "missing-scale"),
    "no weight": ({}, removed("weight"), "orphan-scale"),
    "too few scales": (
        {},
        edited(f"{Q}.weight.absmax", lambda t: ("F32", (5,), t[2][:20])),
        "scale-shape",
    ),
    "codes in rows": (
        {},
        edited(f"{Q}.weight", lambda t: (t[0], (64, t[1][0] // 64), t[2])),
        "scale-shape",
    ),
    "scales in rows": (
        {},
        edited(f"{Q}.weight.absmax", lambda t: ("BF16", (1, *t[1]), t[2][: len(t[2]) // 2])),
        "scale-shape",
    ),
    "scales of another dtype": (
        {},
        edited(f"{Q}.weight.absmax", lambda t: ("F16", t[1], t[2][: len(t[2]) // 2])),
        "scale-shape",
    ),
    "scale that is not finite": (
        {},
        edited(
            f"{Q}.weight.absmax", lambda t: (*t[:2], struct.pack("<f", float("inf")) + t[2][4:])
        ),
        "scale-not-finite",
    ),
    "one layer in float": ({}, lambda path: in_float(path, OUT), "unquantized-not-excluded"),
    "declared eight bits": (
        {},
        lambda path: edit_json(
            path, "config.json", lambda c: c["quantization_config"].update(load_in_8bit=True)
        ),
        "weight-dtype",
    ),
    "skipped and quantized": (
        {},
        lambda path: edit_json(
            path,
            "config.json",
            lambda c: c["quantization_config"].update(llm_int8_skip_modules=["o_proj"]),
        ),
        "excluded-but-quantized",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects(tmp_path: Path, name: str) -> None:
    options, defect, rule = DEFECTS[name]
    build(tmp_path, **options)
    assert flagged(tmp_path) == set()
    defect(tmp_path)
    assert rule in errors(tmp_path)


@pytest.mark.parametrize("value", [None, [], "x", 2**70, {"a": 1}, True])
@pytest.mark.parametrize(
    "key", ["bnb_4bit_quant_type", "bnb_4bit_quant_storage", "llm_int8_skip_modules"]
)
def test_declarations_of_any_type(tmp_path: Path, key: str, value: object) -> None:
    build(tmp_path, **{key: value})
    judge(tmp_path)
