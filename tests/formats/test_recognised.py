"""MLX, and the formats that are known by name: named, counted, and plain about what is unknown."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Tensor, edit_json, edit_tensors
from judging import errors, flagged, gather, judge
from quantizers import convert, exl2, exl3, mlx, tensor

from gate.formats.recognised import METHODS

OUT = "model.layers.1.self_attn.o_proj"
UP = "model.layers.0.mlp.up_proj"
LOGICAL = (checkpoints.INTERMEDIATE, checkpoints.HIDDEN)


def build_mlx(path: Path, bits: int = 4, group_size: int = 32, **more: Any) -> Path:
    """As mlx-lm writes it: the declaration stands twice, and neither names a method."""
    declared = {"group_size": group_size, "bits": bits} | more
    convert(path, mlx(bits, group_size), declared)
    edit_json(path, "config.json", lambda config: config.update(quantization=declared))
    return path


@pytest.mark.parametrize(("bits", "size"), [(2, 64), (3, 32), (4, 64), (5, 32), (6, 64), (8, 32)])
def test_mlx(tmp_path: Path, bits: int, size: int) -> None:
    build_mlx(tmp_path, bits, size)
    result = judge(tmp_path)
    assert (result.format, result.algorithms) == ("mlx", (f"MLX affine W{bits} g{size}",))
    assert result.findings == ()
    assert gather(tmp_path).layer_of[UP].shape == LOGICAL


def test_mlx_modules_of_their_own(tmp_path: Path) -> None:
    build_mlx(tmp_path, **{OUT: {"bits": 8, "group_size": 64}, UP: False})
    found = {finding.rule for finding in judge(tmp_path).errors}
    assert {"excluded-but-quantized", "group-does-not-divide"} <= found
    eight = mlx(8, 64)(np.random.default_rng(0).normal(0, 0.02, (64, 64)))

    def change(tensors: dict[str, Tensor]) -> None:
        tensors |= {f"{OUT}.{suffix}": value for suffix, value in eight.items()}
        for module in (UP, UP.replace("up_proj", "gate_proj")):
            for suffix in ("scales", "biases"):
                del tensors[f"{module}.{suffix}"]
            tensors[f"{module}.weight"] = checkpoints.bf16(LOGICAL)

    edit_tensors(tmp_path, change)
    assert judge(tmp_path).findings == ()


def test_mlx_mxfp4(tmp_path: Path) -> None:
    build_mlx(tmp_path, mode="mxfp4")

    def change(tensors: dict[str, Tensor]) -> None:
        for name, (_, shape, _) in list(tensors.items()):
            if name.endswith(".biases"):
                del tensors[name]
            elif name.endswith(".scales"):
                tensors[name] = tensor(np.full(shape, 120, np.uint8))

    edit_tensors(tmp_path, change)
    result = judge(tmp_path)
    assert result.algorithms == ("MLX mxfp4 W4 g32",)
    assert result.findings == ()


@pytest.mark.parametrize(("suffix", "rule"), [("biases", "missing-scale"), ("weight", "orphan")])
def test_mlx_without(tmp_path: Path, suffix: str, rule: str) -> None:
    build_mlx(tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors.pop(f"{OUT}.{suffix}"))
    assert any(found.startswith(rule) for found in errors(tmp_path))


def test_mlx_group_that_does_not_divide(tmp_path: Path) -> None:
    build_mlx(tmp_path)
    edit_json(tmp_path, "config.json", lambda config: config["quantization"].update(group_size=48))
    assert "group-does-not-divide" in errors(tmp_path)


@pytest.mark.parametrize("value", [None, [], "x", -1, 2**70, {"a": 1}, True])
@pytest.mark.parametrize("key", ["bits", "group_size", "mode", UP])
def test_mlx_of_any_type(tmp_path: Path, key: str, value: object) -> None:
    build_mlx(tmp_path)
    edit_json(tmp_path, "config.json", lambda config: config["quantization"].update({key: value}))
    assert judge(tmp_path).format == "mlx"


@pytest.mark.parametrize(
    ("method", "quantizer"), [("exl3", exl3()), ("exl2", exl2())], ids=["exl3", "exl2"]
)
def test_exllama(tmp_path: Path, method: str, quantizer: Any) -> None:
    convert(tmp_path, quantizer, {"quant_method": method, "version": "0.0.6", "bits": 3.0})
    result = judge(tmp_path)
    assert (result.format, result.algorithms) == (method, (method,))
    assert result.findings == ()
    assert gather(tmp_path).layer_of[UP].shape == LOGICAL
    reasons = {skip.rule: skip.reason for skip in result.skipped}
    assert reasons["scale-shape"] == f"only in part: the layout of {method} is not described"


def test_scales_that_are_not_finite(tmp_path: Path) -> None:
    convert(tmp_path, exl3(), {"quant_method": "exl3"})
    broken = tensor(np.array([np.nan] + [1.0] * 63, np.float16))
    edit_tensors(tmp_path, lambda tensors: tensors.update({f"{OUT}.suh": broken}))
    assert flagged(tmp_path) == {"scale-not-finite"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_name(tmp_path: Path, method: str) -> None:
    """Nothing is known of the layout, and every report says so."""

    def quantizer(weight: np.ndarray) -> dict[str, Tensor]:
        return {"qdata": tensor(weight.astype(np.int8)), "meta": tensor(np.zeros(3, np.uint8))}

    convert(tmp_path, quantizer, {"quant_method": method, "data_type": "fp"})
    result = judge(tmp_path)
    assert result.format is not None
    assert result.findings == ()
    reasons = {skip.reason for skip in result.skipped if skip.rule == "missing-scale"}
    assert len(reasons) == 1


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    convert(tmp_path, exl3(), {"quant_method": "made-up"})
    result = judge(tmp_path)
    assert result.format is None
    assert any("'made-up'" in skip.reason for skip in result.skipped)


@pytest.mark.parametrize("method", [None, [], {}, 5, True, "", "\ud800"])
def test_methods_of_any_type(tmp_path: Path, method: object) -> None:
    convert(tmp_path, exl3(), {"quant_method": method})
    judge(tmp_path)
