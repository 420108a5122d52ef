"""What checkpoints weigh, against counts made by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest

from gate.checkpoint import Checkpoint, open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import identify
from gate.records import Size
from gate.size import decoded_bytes, size

PER_LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64
LINEAR = 2 * PER_LAYER
OTHERS = 96 * 64 + 5 * 64
"""Embedding and norms of the tiny model."""


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(path, CONTAINERS)


def weigh(path: Path, reference: Path | None = None) -> Size:
    checkpoint = opened(path)
    form = identify(checkpoint, FORMATS)
    return size(checkpoint, form, opened(reference) if reference else None)


def decoded(path: Path, **options: int) -> int:
    checkpoint = opened(path)
    return decoded_bytes(checkpoint, identify(checkpoint, FORMATS), **options)


@pytest.mark.parametrize(
    ("algo", "linear_bytes"),
    [
        (None, 2 * LINEAR),
        ("FP8", LINEAR + 14 * 8),
        ("NVFP4", LINEAR // 2 + LINEAR // 16 + 14 * 8),
        ("W4A16_NVFP4", LINEAR // 2 + LINEAR // 16 + 14 * 4),
    ],
)
def test_bytes_and_parameters(tmp_path: Path, algo: str | None, linear_bytes: int) -> None:
    result = weigh(checkpoints.build(tmp_path, algo))
    assert result.parameters == LINEAR + OTHERS
    assert result.stored_bytes == linear_bytes + 2 * OTHERS
    assert result.bits_per_weight == 8 * result.stored_bytes / result.parameters
    if algo:
        assert result.linear_bits_per_weight == 8 * linear_bytes / LINEAR
    else:
        assert result.linear_bits_per_weight is None


@pytest.mark.parametrize("algo", [None, "FP8", "NVFP4", "MIXED_PRECISION"])
def test_the_parts_make_the_whole(tmp_path: Path, algo: str | None) -> None:
    result = weigh(checkpoints.build(tmp_path, algo, experts=3, tied=False, shards=2))
    for parts in (result.by_dtype, result.by_class):
        assert sum(part.stored_bytes for part in parts.values()) == result.stored_bytes
        assert sum(part.parameters for part in parts.values()) == result.parameters
        stored = [part.stored_bytes for part in parts.values()]
        assert stored == sorted(stored, reverse=True)
    assert result.by_class["experts"].parameters == 2 * 3 * 3 * 128 * 64
    assert result.by_class["attention"].parameters == 2 * (2 * 64 * 64 + 2 * 32 * 64)
    assert result.by_class["lm_head"].parameters == result.by_class["embedding"].parameters
    assert result.by_class["router"].parameters == 2 * 3 * 64
    assert result.by_class["norm"].parameters == 5 * 64


def test_scales_are_no_parameters(tmp_path: Path) -> None:
    result = weigh(checkpoints.build(tmp_path, "NVFP4"))
    assert result.by_dtype["F8_E4M3"].parameters == 0
    assert result.by_dtype["F32"].parameters == 0
    checkpoints.edit_tensors(
        tmp_path,
        lambda t: t.update({"model.layers.0.self_attn.k_proj.k_scale": checkpoints.f32(())}),
    )
    assert weigh(tmp_path).parameters == result.parameters


@pytest.mark.parametrize("algo", checkpoints.ALGORITHMS)
def test_every_layout_counts_the_same(tmp_path: Path, algo: str) -> None:
    """Whatever two weights share a byte, and whatever stands beside them."""
    assert weigh(checkpoints.build(tmp_path, algo)).parameters == LINEAR + OTHERS


@pytest.mark.parametrize(
    ("algo", "codes", "scale"),
    [
        ("FP8", ("F8_E4M3", (4, 64, 256)), ("F32", ())),
        ("NVFP4", ("U8", (4, 32, 256)), ("F8_E4M3", (4, 4, 256))),
        ("mxfp4", ("U8", (4, 64, 128)), ("U8", (4, 64, 8))),
    ],
)
def test_experts_in_one_tensor(
    tmp_path: Path, algo: str, codes: tuple[str, tuple], scale: tuple[str, tuple]
) -> None:
    checkpoints.build(tmp_path, algo)
    before = weigh(tmp_path).parameters
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    added = {
        name: (dtype, shape, bytes(math.prod(shape) * (4 if dtype == "F32" else 1)))
        for name, (dtype, shape) in ((experts, codes), (f"{experts}_weight_scale", scale))
    }
    checkpoints.edit_tensors(tmp_path, lambda tensors: tensors.update(added))
    assert weigh(tmp_path).parameters == before + 4 * 64 * 256


def test_compression_against_the_reference(tmp_path: Path) -> None:
    reference = checkpoints.build(tmp_path / "reference", None)
    result = weigh(checkpoints.build(tmp_path / "fp8", "FP8"), reference)
    assert result.reference_bytes == 2 * (LINEAR + OTHERS)
    assert result.compression == result.reference_bytes / result.stored_bytes


@pytest.mark.parametrize("algo", [None, "FP8", "NVFP4", "FP8_PB_WO"])
def test_decoded_memory_does_not_depend_on_the_format(tmp_path: Path, algo: str | None) -> None:
    assert decoded(checkpoints.build(tmp_path, algo)) == 2 * (LINEAR + OTHERS)
    assert decoded(tmp_path, bytes_per_parameter=4) == 4 * (LINEAR + OTHERS)


def test_a_tied_head_is_the_embeddings_memory(tmp_path: Path) -> None:
    untied = decoded(checkpoints.build(tmp_path, tied=False))
    assert untied == 2 * (LINEAR + OTHERS + 96 * 64)
    checkpoints.edit_json(tmp_path, "config.json", lambda c: c.update(tie_word_embeddings=True))
    assert decoded(tmp_path) == 2 * (LINEAR + OTHERS)


@pytest.mark.parametrize(("name", "bits"), [("fp8", 8.0), ("nvfp4", 4.5)])
def test_real_exports(name: str, bits: float, export: Callable[[str], Path]) -> None:
    reference, path = export("bf16"), export(name)
    result = weigh(path, reference)
    assert result.parameters == weigh(reference).parameters == 134_515_008
    assert result.linear_bits_per_weight == pytest.approx(bits, abs=0.001)
    assert decoded(path) == result.reference_bytes == 2 * 134_515_008


def test_nothing_weighs_nothing(tmp_path: Path) -> None:
    result = weigh(tmp_path)
    assert (result.stored_bytes, result.parameters, result.by_class) == (0, 0, {})
    assert result.bits_per_weight != result.bits_per_weight
