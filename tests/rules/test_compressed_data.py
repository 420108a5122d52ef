"""Rules for the data of compressed-tensors and block FP8: each flags its defect alone."""

import struct
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_json, edit_tensors
from compressed_checkpoints import compressed
from judging import flagged, judge

K = "model.layers.0.self_attn.k_proj"
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
W4A4 = {"weights": NVFP4, "input_activations": NVFP4 | {"dynamic": "local"}}


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ((32, 64), False),
        ((64, 32), True),
        ((32, 63), True),  # fills the words, not the groups
        ((31, 64), True),
        ((32, -64), True),
        ((32, 2**62), True),
    ],
)
def test_packed_shape_disagrees(shape: tuple[int, int], wrong: bool, tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", {"weights": INT4}, layers=1)
    stated = ("I64", (2,), struct.pack("<2q", *shape))
    edit_tensors(path, lambda t: t.update({f"{K}.weight_shape": stated}))
    assert flagged(path) == ({"packed-shape-disagrees"} if wrong else set())


def test_global_divisor_implausible(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", W4A4)
    assert flagged(path) == set()
    one = {f"{K}.input_global_scale": checkpoints.f32((1,), 1e-6)}
    edit_tensors(path, lambda t: t.update(one))
    assert "global-divisor-implausible" not in flagged(path), "one layer of many is no mixup"
    for value in (1 / 100, 1e9):
        every = checkpoints.f32((1,), value)
        edit_tensors(
            path,
            lambda t, every=every: t.update(
                {name: every for name in t if name.endswith("input_global_scale")}
            ),
        )
        found = [f for f in judge(path).findings if f.rule == "global-divisor-implausible"]
        assert len(found) == 1


def test_weight_divisor_that_is_its_own_reciprocal(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", W4A4)
    edit_tensors(
        path,
        lambda t: t.update(
            {
                name: checkpoints.f32((1,), 1 / struct.unpack("<f", tensor[2])[0])
                for name, tensor in t.items()
                if name.endswith("weight_global_scale")
            }
        ),
    )
    assert flagged(path) == {"implausible-magnitude"}


@pytest.mark.parametrize(
    ("value", "declared", "wrong"),
    [(2**-9, True, False), (0.003, True, True), (0.003, False, False)],
)
def test_scale_not_power_of_two(value: float, declared: bool, wrong: bool, tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path / "m", None, layers=1)

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            rows, columns = tensors[name][1]
            tensors[name] = checkpoints.fp8((rows, columns))
            tensors[f"{name}_scale_inv"] = checkpoints.f32((rows // 32, columns // 32), value)

    edit_tensors(path, change)
    config = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    config |= {"scale_fmt": "ue8m0"} if declared else {}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=config))
    assert flagged(path) == ({"scale-not-power-of-two"} if wrong else set())


@pytest.mark.parametrize(("weights", "severity"), [(INT4, "note"), (NVFP4, "error")])
def test_a_negative_scale_is_a_note_where_autoround_writes_it(
    weights: dict[str, object], severity: str, tmp_path: Path
) -> None:
    path = compressed(tmp_path / "m", {"weights": weights})

    def negate(tensors) -> None:
        name = f"{K}.weight_scale"
        dtype, shape, data = tensors[name]
        tensors[name] = dtype, shape, data[:-1] + bytes([data[-1] | 0x80])

    edit_tensors(path, negate)
    found = [f for f in judge(path).findings if f.rule == "scale-negative"]
    assert [f.severity for f in found] == [severity]
