"""Every algorithm's layout: sound ones are silent, and each tensor of it is looked at."""

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from checkpoints import ALGORITHMS, edit_declarations, edit_tensors
from judging import errors, flagged, gather, judge

from gate.formats.modelopt_algorithms import ALGORITHMS as KNOWN
from gate.quantization import QuantizedLayer, Role

DOWN = "model.layers.0.mlp.down_proj"
SPELLINGS = (*ALGORITHMS, "mxfp4", "fp8_pb_real")


def layer(path: Path, name: str = DOWN) -> QuantizedLayer:
    return gather(path).layer_of[name]


def replaced(path: Path, suffix: str, change: Callable[[checkpoints.Tensor], object]) -> None:
    """Change one tensor of the down projection."""
    name = f"{DOWN}.{suffix}"
    edit_tensors(path, lambda tensors: tensors.update({name: change(tensors[name])}))


def test_every_described_algorithm_is_written_here() -> None:
    described = {name for name, algo in KNOWN.items() if algo.scheme is not None}
    assert described == set(ALGORITHMS)


@pytest.mark.parametrize("algo", SPELLINGS)
def test_a_sound_checkpoint_is_silent(tmp_path: Path, algo: str) -> None:
    result = judge(checkpoints.build(tmp_path, algo))
    assert result.errors == ()
    assert result.algorithms == (algo,)
    assert not any("not described" in skipped.reason for skipped in result.skipped)
    found = layer(tmp_path)
    assert found.shape == (checkpoints.HIDDEN, checkpoints.INTERMEDIATE)
    assert found.expected.keys() == found.tensors.keys() | {
        role for role, spec in found.expected.items() if spec.optional
    }
    for role, info in found.tensors.items():
        assert info.name == f"{DOWN}.{found.expected[role].stored_as}"


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_tensor_is_looked_at(tmp_path: Path, algo: str) -> None:
    """A wrong dtype, a wrong shape and an absence each make an error."""
    checkpoints.build(tmp_path, algo)
    for role, spec in layer(tmp_path).expected.items():
        name = f"{DOWN}.{spec.stored_as}"
        if name not in gather(tmp_path).checkpoint.tensors:
            continue
        sound = (tmp_path / "model.safetensors").read_bytes()
        for wrong in ("dtype", "shape", "absent"):
            if (role, wrong) == (Role.WEIGHT, "shape") or (spec.optional and wrong == "absent"):
                continue
            edit_tensors(tmp_path, lambda t, n=name, w=wrong: damage(t, n, w))
            assert errors(tmp_path), f"{name} is wrong: {wrong}"
            (tmp_path / "model.safetensors").write_bytes(sound)
    assert errors(tmp_path) == set()


def damage(tensors: dict[str, checkpoints.Tensor], name: str, wrong: str) -> None:
    dtype, shape, data = tensors.pop(name)
    if wrong == "dtype":
        other = "F8_E5M2" if dtype != "F32" else "I32"
        tensors[name] = other, shape, data[: len(data) // 2] if dtype == "BF16" else data
    elif wrong == "shape":
        tensors[name] = dtype, (*shape, 2), data * 2


@pytest.mark.parametrize("algo", ["W4A16_AWQ", "W4A8_AWQ", "MXFP8", "W4A8_NVFP4_FP8", "NVFP4"])
def test_a_group_that_does_not_divide_the_row_is_found(tmp_path: Path, algo: str) -> None:
    checkpoints.build(tmp_path, algo)
    edit_declarations(tmp_path, lambda body: body.update(group_size=48))
    assert layer(tmp_path).expected[Role.WEIGHT_SCALE].shapes == ()
    assert errors(tmp_path)


@pytest.mark.parametrize("algo", ["NVFP4", "MXFP8", "W4A16_AWQ"])
def test_another_declared_group_size_is_another_shape(tmp_path: Path, algo: str) -> None:
    checkpoints.build(tmp_path, algo)
    half = checkpoints.GROUPS[algo] // 2
    edit_declarations(tmp_path, lambda body: body.update(group_size=half))
    assert "scale-shape" in flagged(tmp_path)


def test_packed_along_the_wrong_features(tmp_path: Path) -> None:
    """The same number of bytes: (out, in / 2) where AWQ stores (out / 2, in)."""
    checkpoints.build(tmp_path, "W4A16_AWQ")
    replaced(tmp_path, "weight", lambda t: (t[0], (t[1][0] * 2, t[1][1] // 2), t[2]))
    assert layer(tmp_path).shape == (2 * checkpoints.HIDDEN, checkpoints.INTERMEDIATE // 2)
    assert "scale-shape" in flagged(tmp_path)


@pytest.mark.parametrize("algo", ["W4A16_AWQ", "NVFP4_AWQ", "W8A8_SQ_PER_CHANNEL", "NVFP4_SVD"])
def test_a_layer_may_go_unsmoothed(tmp_path: Path, algo: str) -> None:
    """Where the factors could be folded into the norm before it."""
    checkpoints.build(tmp_path, algo)

    def fold(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("pre_quant_scale")]:
            if "o_proj" not in name:
                del tensors[name]

    edit_tensors(tmp_path, fold)
    assert errors(tmp_path) == set()


def test_the_low_rank_factors_of_either_exporter(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4_SVD")

    def rename(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if "lora" in name]:
            tensors[name.replace("weight_quantizer._", "")] = tensors.pop(name)

    edit_tensors(tmp_path, rename)
    found = layer(tmp_path)
    assert {Role.LORA_A, Role.LORA_B} <= found.tensors.keys()
    assert found.tensors[Role.LORA_A].name == f"{DOWN}.svdquant_lora_a"
    edit_tensors(
        tmp_path, lambda t: t.update({f"{DOWN}.svdquant_lora_a": checkpoints.bf16((9, 128))})
    )
    assert "scale-shape" in flagged(tmp_path)


def test_undescribed_algorithms_are_said_to_be_so(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8")
    edit_declarations(tmp_path, lambda body: body.update(quant_algo="FP8_PB"))
    result = judge(tmp_path)
    assert result.errors == ()
    assert any("FP8_PB is not described" in skipped.reason for skipped in result.skipped)
    assert layer(tmp_path).shape == (checkpoints.HIDDEN, checkpoints.INTERMEDIATE)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_mixed_with_any_other(tmp_path: Path, algo: str) -> None:
    """Attention in FP8, the MLP in each; every layer carries its own group size."""
    checkpoints.build(tmp_path, "MIXED_PRECISION")

    def swap(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if ".mlp." in name]:
            del tensors[name]
        for number in range(2):
            for part, shape in (("gate", (128, 64)), ("up", (128, 64)), ("down", (64, 128))):
                module = f"model.layers.{number}.mlp.{part}_proj"
                tensors.update(checkpoints.linear(module, algo, shape))

    def declare(body: dict) -> None:
        for name in body["quantized_layers"]:
            if ".mlp." in name:
                entry = {"quant_algo": algo}
                if algo in checkpoints.GROUPS:
                    entry["group_size"] = checkpoints.GROUPS[algo]
                body["quantized_layers"][name] = entry

    edit_tensors(tmp_path, swap)
    edit_declarations(tmp_path, declare)
    assert judge(tmp_path).errors == ()
    assert layer(tmp_path).algo == algo
    assert layer(tmp_path).shape == (64, 128)
