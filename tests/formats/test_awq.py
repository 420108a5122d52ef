"""AWQ, packed here from the layout: sound files raise nothing, each defect its own rule."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import edit_json, edit_tensors
from judging import errors, flagged, gather, judge
from quantizers import awq, convert, gptq, tensor

OUT = "model.layers.1.self_attn.o_proj"


def declared(**changes: Any) -> dict[str, Any]:
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    } | changes


def build(path: Path, **changes: Any) -> Path:
    config = declared(**changes)
    return convert(path, awq(config["group_size"]), config)


def float_o(path: Path) -> None:
    """Store one layer unquantized."""

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for suffix in ("qweight", "qzeros", "scales"):
            del tensors[f"{OUT}.{suffix}"]
        tensors[f"{OUT}.weight"] = checkpoints.bf16((64, 64))

    edit_tensors(path, change)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "AWQ W4 g32 asym"),
        ({"version": "GEMM", "group_size": 64}, "AWQ W4 g64 asym"),
        ({"group_size": -1}, "AWQ W4 per-channel asym"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"}, "AWQ W4 g32"),
    ],
)
def test_sound(tmp_path: Path, changes: dict[str, Any], label: str) -> None:
    result = judge(build(tmp_path, **changes))
    assert result.format == "awq"
    assert [name.startswith(label) for name in result.algorithms] == [True]
    assert result.findings == ()


def test_shapes_are_logical(tmp_path: Path) -> None:
    shape = gather(build(tmp_path)).layer_of["model.layers.0.mlp.up_proj"].shape
    assert shape == (checkpoints.INTERMEDIATE, checkpoints.HIDDEN)


def test_own_file(tmp_path: Path) -> None:
    build(tmp_path)
    edit_json(tmp_path, "config.json", lambda value: value.pop("quantization_config"))
    own = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    checkpoints.write_json(tmp_path / "quant_config.json", own)
    result = judge(tmp_path)
    assert (result.format, result.algorithms) == ("awq", ("AWQ W4 g32 asym",))
    assert result.findings == ()


@pytest.mark.parametrize("file", ["quant_config.json", "quantize_config.json"])
def test_own_file_beside_plain_weights(tmp_path: Path, file: str) -> None:
    checkpoints.build(tmp_path, None)
    checkpoints.write_json(tmp_path / file, {"bits": 4, "group_size": 32})
    result = judge(tmp_path)
    assert result.format is None
    assert result.findings == ()


@pytest.mark.parametrize("version", ["gemv", "gemv_fast", "llm-awq", "marlin"])
def test_other_layouts_are_named(tmp_path: Path, version: str) -> None:
    result = judge(build(tmp_path, version=version))
    assert result.findings == ()
    assert any(version.upper() in skip.reason for skip in result.skipped)


@pytest.mark.parametrize(
    "entry", ["self_attn", "model.layers.1.self_attn", "o_proj", OUT, "layers.1.self_attn.o_proj"]
)
def test_lists_of_modules(tmp_path: Path, entry: str) -> None:
    """Whatever the reading, a module that is listed is not expected quantized."""
    build(tmp_path, modules_to_not_convert=[entry])
    assert errors(tmp_path) == {"excluded-but-quantized"}
    build(tmp_path, modules_to_not_convert=[entry])
    edit_tensors(tmp_path, lambda tensors: _only_listed(tensors, entry))
    assert errors(tmp_path) == set()


def _only_listed(tensors: dict[str, checkpoints.Tensor], entry: str) -> None:
    for name in list(tensors):
        module, _, suffix = name.rpartition(".")
        if suffix != "weight" and f".{entry}." in f".{module}.":
            if suffix == "scales":
                columns = tensors[name][1][1]
                tensors[f"{module}.weight"] = checkpoints.bf16((columns, checkpoints.HIDDEN))
            del tensors[name]


@pytest.mark.parametrize(
    "entry", ["language_model.model.layers.1.self_attn.o_proj", "o_pro", r".*layers\.1\..*o_proj"]
)
def test_names_of_another_version(tmp_path: Path, entry: str) -> None:
    """Stored quantized or not: some runtime reads it so."""
    build(tmp_path, modules_to_not_convert=[entry])
    assert judge(tmp_path).findings == ()
    float_o(tmp_path)
    assert judge(tmp_path).findings == ()


def test_one_layer_in_float(tmp_path: Path) -> None:
    float_o(build(tmp_path))
    assert errors(tmp_path) == {"unquantized-not-excluded"}


def test_routers_and_heads_stay_in_float(tmp_path: Path) -> None:
    convert(tmp_path, awq(), declared(), experts=4, tied=False)
    assert judge(tmp_path).findings == ()


def test_order_of_inputs(tmp_path: Path) -> None:
    order = tensor(np.arange(64, dtype=np.int32) // 32)
    build(tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors.update({f"{OUT}.g_idx": order}))
    assert flagged(tmp_path) == {"unexpected-scale"}


@pytest.mark.parametrize("suffix", ["qzeros", "scales"])
def test_missing(tmp_path: Path, suffix: str) -> None:
    build(tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors.pop(f"{OUT}.{suffix}"))
    assert errors(tmp_path) == {"missing-scale"}


def test_group_that_does_not_divide(tmp_path: Path) -> None:
    build(tmp_path)
    edit_json(tmp_path, "config.json", lambda c: c["quantization_config"].update(group_size=48))
    assert errors(tmp_path) == {"group-does-not-divide"}


def test_packed_as_gptq(tmp_path: Path) -> None:
    convert(tmp_path, gptq(), declared())
    assert "group-does-not-divide" in errors(tmp_path)
    assert "unexpected-scale" in flagged(tmp_path)
