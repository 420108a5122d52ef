"""Each rule: one checkpoint that it flags, and a sound one on which all are silent."""

import json
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_declarations, edit_json, edit_tensors
from judging import judge

from gate.rules import RULES

Q = "model.layers.1.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


def replaced(name: str, tensor: checkpoints.Tensor) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, lambda tensors: tensors.update({name: tensor}))


def removed(name: str) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, lambda tensors: tensors.pop(name))


def written(name: str, content: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(content)


def kv_scaled(tensor: checkpoints.Tensor) -> Callable[[Path], None]:
    """Scales of the KV cache in both layers."""
    attention = [f"model.layers.{layer}.self_attn" for layer in range(2)]
    names = [f"{parent}.{kind}_proj.{kind}_scale" for parent in attention for kind in "kv"]
    return lambda path: edit_tensors(path, lambda t: t.update(dict.fromkeys(names, tensor)))


def truncated(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def overlapping(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    checkpoints.write_raw(
        path / "model.safetensors", json.dumps({"a": entry, "b": entry}).encode(), b"\0" * 8
    )


def undeclared(path: Path) -> None:
    (path / "hf_quant_config.json").unlink()
    edit_json(path, "config.json", lambda config: config.pop("quantization_config"))


def first_shard(path: Path) -> Path:
    return path / "model-00001-of-00003.safetensors"


def unlisted(path: Path) -> None:
    edit_json(path, "model.safetensors.index.json", lambda index: index["weight_map"].popitem())


def overlisted(path: Path) -> None:
    name = first_shard(path).name
    extra = {"model.mtp.weight": name}
    edit_json(path, "model.safetensors.index.json", lambda index: index["weight_map"].update(extra))


def block_scale(code: int) -> Callable[[Path], None]:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        dtype, shape, data = tensors[f"{DOWN}.weight_scale"]
        tensors[f"{DOWN}.weight_scale"] = dtype, shape, data[:-1] + bytes([code])

    return lambda path: edit_tensors(path, change)


def head(algo: str) -> Callable[[Path], None]:
    tensors = checkpoints.linear("lm_head", algo, (checkpoints.VOCAB, checkpoints.HIDDEN))
    return lambda path: edit_tensors(path, lambda stored: stored.update(tensors))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
F8_WEIGHT = checkpoints.fp8((64, 64))
DEFECTS: list[tuple[str, dict[str, object], Callable[[Path], object], str]] = [
    ("config-json-unreadable", {"algo": None}, written("config.json", "{"), "config.json"),
    ("config-json-unreadable", {"algo": None}, written("config.json", "[]"), "list"),
    ("no-weights", {}, pickled, "pytorch_model.bin"),
    ("no-weights", {}, lambda path: (path / "model.safetensors").unlink(), "safetensors"),
    ("lfs-pointer", {}, written("model.safetensors", LFS), "model.safetensors"),
    ("lfs-pointer", {}, written("tokenizer.json", LFS), "tokenizer.json"),
    ("shard-missing", {"shards": 3}, lambda p: first_shard(p).unlink(), "model-00001"),
    ("header-unreadable", {}, overlapping, "tensor b"),
    ("header-unreadable", {"shards": 3}, written("model.safetensors.index.json", "{}"), "map"),
    ("shard-truncated", {}, truncated, "model.safetensors"),
    ("shard-truncated", {}, written("model.safetensors", ""), "0 bytes"),
    ("tensor-not-indexed", {"shards": 3}, unlisted, "weight"),
    ("indexed-tensor-absent", {"shards": 3}, overlisted, "model.mtp.weight"),
    (
        "generation-config-unreadable",
        {},
        written("generation_config.json", "nope"),
        "generation_config.json",
    ),
    ("tokenizer-missing", {}, lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json"),
    ("quant-config-unreadable", {}, written("hf_quant_config.json", "{,"), "hf_quant_config"),
    (
        "quant-config-schema",
        {"algo": "NVFP4"},
        lambda p: edit_json(
            p, "hf_quant_config.json", lambda v: v["quantization"].update(group_size="x")
        ),
        "/quantization/group_size",
    ),
    (
        "quant-config-schema",
        {},
        lambda p: edit_json(
            p, "config.json", lambda v: v["quantization_config"].update(quant_method=5)
        ),
        "/quantization_config/quant_method",
    ),
    ("quantized-but-undeclared", {"algo": "NVFP4"}, undeclared, "U8"),
    ("quantized-but-undeclared", {"algo": "FP8"}, undeclared, "F8_E4M3"),
    (
        "unknown-algo",
        {},
        lambda p: edit_declarations(p, lambda d: d.update(quant_algo="FP9")),
        "FP9",
    ),
    (
        "unknown-algo",
        {"algo": "MIXED_PRECISION"},
        lambda p: edit_declarations(p, lambda d: d["quantized_layers"][Q].update(quant_algo="F8")),
        f"/quantized_layers/{Q}/quant_algo",
    ),
    (
        "unknown-algo",
        {},
        lambda p: edit_declarations(p, lambda d: d.update(kv_cache_quant_algo="FP7")),
        "FP7",
    ),
    (
        "configs-disagree-algo",
        {},
        lambda p: edit_json(
            p, "hf_quant_config.json", lambda v: v["quantization"].update(quant_algo="NVFP4")
        ),
        "FP8 against NVFP4",
    ),
    (
        "configs-disagree-group-size",
        {"algo": "NVFP4"},
        lambda p: edit_json(
            p, "hf_quant_config.json", lambda v: v["quantization"].update(group_size=32)
        ),
        "group size 16 against 32",
    ),
    (
        "configs-disagree-layers",
        {"algo": "MIXED_PRECISION"},
        lambda p: edit_json(
            p, "hf_quant_config.json", lambda v: v["quantization"]["quantized_layers"].pop(Q)
        ),
        f"{Q} is FP8 against not quantized",
    ),
    (
        "configs-disagree-algo",
        {},
        lambda p: edit_json(
            p, "config.json", lambda v: v.update(quantization_config={"quant_method": "awq"})
        ),
        "awq",
    ),
    (
        "configs-disagree-exclude",
        {},
        lambda p: edit_json(
            p, "config.json", lambda v: v["quantization_config"].update(ignore=["lm_head"])
        ),
        "model.embed_tokens",
    ),
    (
        "excluded-but-quantized",
        {"tied": False},
        head("FP8"),
        "lm_head",
    ),
    (
        "excluded-but-quantized",
        {"algo": "MIXED_PRECISION"},
        lambda p: edit_declarations(p, lambda d: d["quantized_layers"].pop(Q, None)),
        Q,
    ),
    ("unquantized-not-excluded", {"tied": False, "exclude": ()}, lambda p: None, "lm_head"),
    ("weight-dtype", {"algo": "NVFP4"}, replaced(f"{Q}.weight", F8_WEIGHT), "F8_E4M3"),
    ("weight-dtype", {"algo": "FP8"}, replaced(f"{Q}.weight", checkpoints.bf16((64, 64))), "BF16"),
    ("missing-scale", {"algo": "NVFP4"}, removed(f"{Q}.weight_scale_2"), "weight_scale_2"),
    ("missing-scale", {"algo": "FP8"}, removed(f"{Q}.input_scale"), "input_scale"),
    ("orphan-scale", {"algo": "FP8"}, removed(f"{Q}.weight"), "is not stored"),
    (
        "missing-scale",
        {"algo": "NVFP4", "experts": 4},
        removed("model.layers.1.mlp.experts.3.up_proj.input_scale"),
        "experts.3.up_proj",
    ),
    ("scalar-scale-shape", {}, replaced(f"{Q}.weight_scale", checkpoints.f32((64,))), "[64]"),
    (
        "scale-shape",
        {"algo": "NVFP4"},
        replaced(f"{Q}.weight_scale", checkpoints.fp8((256,))),
        "[64, 4]",
    ),
    (
        "scale-shape",
        {"algo": "NVFP4"},
        replaced("model.layers.1.self_attn.o_proj.weight_scale_2", ("BF16", (), b"\x37\x3b")),
        "BF16",
    ),
    (
        "group-does-not-divide",
        {"algo": "W4A16_NVFP4"},
        lambda p: [
            edit_declarations(p, lambda d: d.update(group_size=48)),
            edit_json(p, "config.json", lambda c: c["quantization_config"].pop("config_groups")),
        ],
        "groups of 48",
    ),
    ("scale-not-finite", {"algo": "NVFP4"}, block_scale(0x7F), "1 of 512"),
    ("scale-not-finite", {"algo": "NVFP4"}, block_scale(0xFF), "1 of 512"),
    (
        "scale-not-finite",
        {},
        replaced(f"{Q}.input_scale", checkpoints.f32((), float("inf"))),
        "input_scale",
    ),
    (
        "scale-not-finite",
        {},
        kv_scaled(checkpoints.f32((), float("nan"))),
        "k_scale",
    ),
    ("scale-zero", {"algo": "NVFP4"}, block_scale(0), "1 of 512"),
    ("scale-zero", {"algo": "NVFP4"}, block_scale(0x80), "1 of 512"),
    ("scale-zero", {}, replaced(f"{Q}.input_scale", checkpoints.f32((), 0.0)), "input_scale"),
    (
        "scale-zero",
        {},
        kv_scaled(checkpoints.f32((), 0.0)),
        "v_scale",
    ),
]


@pytest.mark.parametrize(
    ("rule", "built", "damage", "named"),
    DEFECTS,
    ids=[f"{number}-{defect[0]}" for number, defect in enumerate(DEFECTS)],
)
def test_flags_the_defect_and_nothing_else(
    tmp_path: Path,
    rule: str,
    built: dict[str, object],
    damage: Callable[[Path], object],
    named: str,
) -> None:
    path = checkpoints.build(tmp_path, **built)
    damage(path)
    findings = judge(path).findings
    assert {finding.rule for finding in findings} == {rule}
    text = " ".join(f"{finding.message} {finding.tensor}" for finding in findings)
    assert named in text
    assert all(
        finding.fix.endswith((".", ")", '"')) or "Run" in finding.fix for finding in findings
    )


def test_every_rule_is_tested() -> None:
    tests = Path(__file__).parents[1].rglob("test_*.py")
    text = "".join(path.read_text() for path in tests)
    assert [rule.id for rule in RULES if f'"{rule.id}"' not in text] == []


@pytest.mark.parametrize(
    "built",
    [
        {"algo": None},
        {"algo": "FP8"},
        {"algo": "FP8", "shards": 3, "tied": False},
        {"algo": "FP8_PER_CHANNEL_PER_TOKEN"},
        {"algo": "FP8_PB_WO"},
        {"algo": "fp8_pb_wo"},
        {"algo": "NVFP4"},
        {"algo": "NVFP4", "experts": 4, "shards": 3},
        {"algo": "W4A16_NVFP4"},
        {"algo": "MIXED_PRECISION", "experts": 2, "tied": False},
    ],
    ids=str,
)
def test_silent_on_sound_checkpoints(tmp_path: Path, built: dict[str, object]) -> None:
    result = judge(checkpoints.build(tmp_path, **built))
    # Blocks of 128 cannot be whole in so small a model.
    assert {finding.rule for finding in result.findings} <= {"partial-block"}
    assert result.errors == ()
    asked = {rule.id for rule in RULES if rule.needs not in {"reference", "target"}}
    skipped = {skipped.rule for skipped in result.skipped} & asked
    if built["algo"]:
        assert result.format == "modelopt"
        assert skipped == set()
    else:
        assert result.format is None
    about = {rule.id for rule in RULES if not rule.formats or result.format in rule.formats}
    assert {rule.id for rule in result.rules_run} == about & asked - skipped


@pytest.mark.parametrize("name", ["bf16", "fp8", "nvfp4"])
def test_silent_on_real_exports(name: str, export: Callable[[str], Path]) -> None:
    assert judge(export(name)).findings == ()
