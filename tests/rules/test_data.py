"""Rules about values: each one flags them, and is silent on what sound exports hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Tensor, edit_tensors, f32
from judging import gather, judge

from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import ScaleValues
from gate.lint import lint
from gate.rules import RULES as ALL_RULES
from gate.rules.weight_not_finite import SAMPLE_BYTES, WHOLE_BYTES

RULES = {
    "scale-not-finite",
    "scale-zero",
    "scale-negative",
    "weight-not-finite",
    "weight-all-zero",
    "implausible-magnitude",
    "fused-global-scale-differs",
    "fused-scale-spread",
    "scale-headroom",
    "scale-constant",
    "kv-scale-range",
}
Q = "model.layers.0.self_attn.q_proj"
O = "model.layers.0.self_attn.o_proj"  # noqa: E741
DOWN = "model.layers.0.mlp.down_proj"
Damage = Callable[[Path], object]


def put(tensor: Tensor, *names: str) -> Damage:
    return lambda path: edit_tensors(path, lambda all_: all_.update(dict.fromkeys(names, tensor)))


def put_all(suffix: str, tensor: Tensor) -> Damage:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor for name in tensors if name.endswith(suffix)})

    return lambda path: edit_tensors(path, change)


def with_byte(name: str, at: int, *values: int) -> Damage:
    def change(tensors: dict[str, Tensor]) -> None:
        dtype, shape, data = tensors[name]
        changed = bytearray(data)
        end = at + len(values)
        changed[at : end or None] = bytes(values)
        tensors[name] = dtype, shape, bytes(changed)

    return lambda path: edit_tensors(path, change)


def wide(scale: Tensor) -> Damage:
    """A layer with 2,048 blocks."""
    layer = checkpoints.linear(DOWN, "NVFP4", (256, 128)) | {f"{DOWN}.weight_scale": scale}
    return lambda path: edit_tensors(path, lambda tensors: tensors.update(layer))


def embedding(at: int, rows: int = 128) -> Damage:
    """An embedding of 64 KiB with one NaN."""
    dtype, shape, data = checkpoints.bf16((rows, 256))
    changed = bytearray(data)
    changed[at : at + 2] = b"\xc0\x7f"
    tensor = dtype, shape, bytes(changed)
    return lambda path: edit_tensors(
        path, lambda tensors: tensors.update({"model.embed_tokens.weight": tensor})
    )


KV = tuple(f"model.layers.{n}.self_attn.{k}_proj.{k}_scale" for n in range(2) for k in "kv")
FLAGGED: dict[str, tuple[str, str, str, Damage, str]] = {
    "a negative input scale": (
        "scale-negative", "error", "FP8", put(f32((), -1.0), f"{Q}.input_scale"), "input_scale",
    ),
    "a negative block scale": (
        "scale-negative", "error", "NVFP4", with_byte(f"{DOWN}.weight_scale", 7, 0x81), "1 of 512",
    ),
    "a negative KV scale": ("scale-negative", "error", "FP8", put(f32((), -1.0), *KV), "_scale"),
    "a zero channel with weights in it": (
        "scale-zero",
        "error",
        "FP8_PER_CHANNEL_PER_TOKEN",
        put(("F32", (64,), (np.arange(64, dtype="<f4") / 999).tobytes()), f"{O}.weight_scale"),
        "1 of 64",
    ),
    "all block scales zero": (
        "scale-zero", "error", "NVFP4", put(("F8_E4M3", (64, 4), bytes(256)), f"{O}.weight_scale"),
        "256 of 256",
    ),
    "NaN among FP8 weights": (
        "weight-not-finite", "error", "FP8", with_byte(f"{O}.weight", 9, 0xFF), f"{O}.weight",
    ),
    "NaN in a norm": (
        "weight-not-finite", "error", "NVFP4",
        with_byte("model.norm.weight", 126, 0xC0, 0x7F), "model.norm",
    ),
    "infinity in an unquantized model": (
        "weight-not-finite", "error", "", with_byte(f"{Q}.weight", 0, 0x80, 0xFF), f"{Q}.weight",
    ),
    "NaN at the start of a large tensor": (
        "weight-not-finite", "error", "", embedding(2), "embed_tokens",
    ),
    "NaN in the middle of a large tensor": (
        "weight-not-finite", "error", "", embedding(1 << 15), "embed_tokens",
    ),
    "NaN at the end of a large tensor": (
        "weight-not-finite", "error", "", embedding((1 << 16) - 2), "embed_tokens",
    ),
    "a weight of zeros": (
        "weight-all-zero", "error", "NVFP4", put(("U8", (64, 32), bytes(2048)), f"{O}.weight"),
        "all 2,048 elements",
    ),
    "a reciprocal global scale": (
        "implausible-magnitude", "error", "NVFP4", put_all(".weight_scale_2", f32((), 2688.0)),
        "allow weights up to",
    ),
    "a reciprocal scale": (
        "implausible-magnitude", "error", "FP8", put_all(".weight_scale", f32((), 1 / 0.0028)),
        "1.6e+05",
    ),
    "a vanishing scale": (
        "implausible-magnitude", "warning", "FP8", put(f32((), 1e-12), f"{O}.weight_scale"),
        "4.5e-10",
    ),
    "global scales of siblings": (
        "fused-global-scale-differs", "error", "NVFP4", put(f32((), 0.0056), f"{Q}.weight_scale_2"),
        "weight_scale_2 of q_proj and k_proj and v_proj differ by a factor of 2",
    ),
    "nearly equal global scales": (
        "fused-global-scale-differs", "warning", "NVFP4",
        put(f32((), 0.0029), f"{Q}.weight_scale_2"), "1.036",
    ),
    "input scales of siblings": (
        "fused-global-scale-differs", "warning", "FP8", put(f32((), 0.0056), f"{Q}.input_scale"),
        "input_scale of q_proj",
    ),
    "scales far apart": (
        "fused-scale-spread", "note", "FP8", put(f32((), 0.028), f"{Q}.weight_scale"),
        "1 groups of joined layers",
    ),
    "block scales without headroom": (
        "scale-headroom", "note", "NVFP4",
        put(("F8_E4M3", (64, 4), bytes(range(1, 65)) * 4), f"{O}.weight_scale"), "1 of 14 layers",
    ),
    "block scales all equal": (
        "scale-constant", "warning", "NVFP4", wide(("F8_E4M3", (256, 8), b"\x7e" * 2048)),
        "all 2,048 values",
    ),
    "large KV scales": (
        "kv-scale-range", "warning", "FP8", put(f32((), 2.5), *KV), "4 of 4 scales",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FLAGGED)
def test_flags_the_values(tmp_path: Path, case: str) -> None:
    rule, severity, algo, damage, named = FLAGGED[case]
    path = checkpoints.build(tmp_path, algo or None)
    assert not {found.rule for found in judge(path).findings} & RULES
    damage(path)
    found = [finding for finding in judge(path).findings if finding.rule in RULES]
    also = {"weight-all-zero", "scale-headroom"} if case == "all block scales zero" else set()
    assert {(finding.rule, finding.severity) for finding in found if finding.rule not in also} == {
        (rule, severity)
    }
    assert any(named in f"{finding.message} {finding.tensor}" for finding in found)


def test_equal_input_scales_over_many_layers_are_a_warning(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path, layers=8)
    (found,) = (f for f in judge(path).findings if f.rule in RULES)
    assert (found.rule, found.severity) == ("scale-constant", "warning")
    assert found.message == "all 56 input scales are 0.0028"
    put(f32((), 0.003), "model.layers.7.mlp.down_proj.input_scale")(path)
    assert not {f.rule for f in judge(path).findings} & RULES


def zero_block(tensors: dict[str, Tensor]) -> None:
    """The first block of a layer consists of zeros and so does its scale."""
    for name, size in ((f"{DOWN}.weight", 8), (f"{DOWN}.weight_scale", 1)):
        dtype, shape, data = tensors[name]
        tensors[name] = dtype, shape, b"\x80" * size + data[size:]


SILENT: dict[str, tuple[dict[str, Any], Damage]] = {
    "zero scales of blocks of zeros": (
        {"algo": "NVFP4"},
        lambda path: edit_tensors(path, zero_block),
    ),
    "input scales all one": ({"layers": 8}, put_all(".input_scale", f32((), 1.0))),
    "KV scales of one, as ModelOpt wrote before 0.43": ({}, put(f32((), 1.0), *KV)),
    "KV scales that were calibrated": ({}, put(f32((), 0.11), *KV)),
    "FP8 scales of siblings differ": ({}, put(f32((), 0.0056), f"{Q}.weight_scale")),
    "the input of each expert's gate has its own scale": (
        {"algo": "NVFP4", "experts": 2},
        put(f32((), 0.5), "model.layers.0.mlp.experts.1.gate_proj.input_scale"),
    ),
    "global scales differ between experts": (
        {"algo": "NVFP4", "experts": 2},
        put(
            f32((), 0.01),
            "model.layers.0.mlp.experts.1.gate_proj.weight_scale_2",
            "model.layers.0.mlp.experts.1.up_proj.weight_scale_2",
        ),
    ),
    "one sibling's block scales are small": (
        {"algo": "NVFP4"},
        put(("F8_E4M3", (64, 4), b"\x20" * 256), f"{Q}.weight_scale"),
    ),
    "block scales of four over six": (
        {"algo": "NVFP4"},
        put(("F8_E4M3", (64, 4), b"\x20" * 255 + b"\x78"), f"{O}.weight_scale"),
    ),
    "few blocks, all equal": (
        {"algo": "NVFP4"},
        put(("F8_E4M3", (64, 4), b"\x7e" * 256), f"{O}.weight_scale"),
    ),
    "smoothing factors below zero": (
        {"algo": "NVFP4"},
        put(("BF16", (64,), b"\x80\xbf" * 64), f"{O}.pre_quant_scale"),
    ),
    "minus infinity in a mask": (
        {"algo": None},
        put(("BF16", (4, 4), b"\x80\xff" * 16), "model.causal_mask"),
    ),
    "a zero at the place where a weight is looked at": (
        {"algo": "NVFP4"},
        put(("U8", (64, 32), b"\x11" * 8 + bytes(2040)), f"{O}.weight"),
    ),
    "an empty tensor": ({"algo": None}, put(("BF16", (0, 4), b""), "model.extra.weight")),
}


@pytest.mark.parametrize("case", SILENT)
def test_is_silent_on_what_sound_exports_hold(tmp_path: Path, case: str) -> None:
    built, change = SILENT[case]
    path = checkpoints.build(tmp_path, **built)
    change(path)
    assert [found for found in judge(path).findings if found.rule in RULES] == []


@pytest.mark.parametrize("name", ["bf16", "fp8", "nvfp4"])
def test_is_silent_on_real_exports(name: str, export: Callable[[str], Path]) -> None:
    result = judge(export(name))
    assert [found for found in result.findings if found.rule in RULES] == []
    assert RULES & {"weight-not-finite"} <= {rule.id for rule in result.rules_run}


def test_of_a_large_tensor_three_pages_are_read(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path, None)
    embedding(SAMPLE_BYTES)(path)
    assert len(checkpoints.read_safetensors(path / "model.safetensors")) and WHOLE_BYTES < 1 << 16
    assert not {found.rule for found in judge(path).findings} & RULES


class Remote:
    """A store that is no local directory."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.bytes_read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, name: str, begin: int = 0, end: int | None = None) -> memoryview:
        data: memoryview = self._store.read(name, begin, end)
        self.bytes_read += len(data)
        return data


def test_weights_of_a_remote_checkpoint_are_not_read(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path, "NVFP4")
    edit_tensors(path, zero_block)
    with_byte("model.norm.weight", 126, 0xC0, 0x7F)(path)
    evidence = gather(path)
    store = Remote(evidence.checkpoint.store)
    object.__setattr__(evidence.checkpoint, "store", store)
    result = lint(evidence, ALL_RULES, {})
    skipped = {entry.rule: entry.reason for entry in result.skipped}
    for rule in ("weight-not-finite", "weight-all-zero"):
        assert skipped[rule] == "the weights are not downloaded"
    found = [finding for finding in result.findings if finding.rule in RULES]
    assert [(finding.rule, finding.severity) for finding in found] == [("scale-zero", "warning")]
    scales = [info for layer in evidence.layers for info in layer.tensors.values()]
    assert store.bytes_read < sum(info.nbytes for info in scales if info.name.endswith("t")) / 2


def test_headers_only_leaves_the_data_alone(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path, "NVFP4")
    with_byte("model.norm.weight", 126, 0xC0, 0x7F)(path)
    result = judge(path, headers_only=True)
    assert not {found.rule for found in result.findings} & RULES
    skipped = {entry.rule for entry in result.skipped if entry.reason == "--headers-only"}
    assert skipped >= RULES


@pytest.mark.parametrize(
    ("tensor", "low", "high"),
    [
        (f32((), 2.5), 2.5, 2.5),
        (("F32", (2,), np.array([3, -1], "<f4").tobytes()), -1.0, 3.0),
        (("F64", (1,), np.array([1e300], "<f8").tobytes()), 1e300, 1e300),
        (("BF16", (2,), b"\x80\x3f\x00\x40"), 1.0, 2.0),
        (("F16", (2,), np.array([0.5, 4], "<f2").tobytes()), 0.5, 4.0),
        (("F8_E4M3", (3,), b"\x38\x40\x7e"), 1.0, 448.0),
        (("F8_E4M3", (2,), b"\x38\xb8"), -1.0, 1.0),
        (("U8", (2,), b"\x7f\x80"), 1.0, 2.0),
        (("F8_E8M0", (2,), b"\x00\xfe"), 2.0**-127, 2.0**127),
        (("F8_E4M3", (2,), b"\x38\x7f"), float("nan"), float("nan")),
        (("U8", (2,), b"\x7f\xff"), float("nan"), float("nan")),
        (("F32", (2,), np.array([1, np.nan], "<f4").tobytes()), float("nan"), float("nan")),
        (("F32", (0,), b""), float("nan"), float("nan")),
    ],
)
def test_limits_of_scales(tmp_path: Path, tensor: Tensor, low: float, high: float) -> None:
    checkpoints.write_safetensors(tmp_path / "model.safetensors", {"scale": tensor})
    checkpoint: Checkpoint = gather(tmp_path).checkpoint
    info: TensorInfo = checkpoint.tensors["scale"]
    values = ScaleValues(checkpoint, info)
    np.testing.assert_equal((values.low, values.high), (low, high))
