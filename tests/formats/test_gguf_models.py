"""GGUF models: sound ones are silent, of every type; each defect is named and nothing else."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import pytest
from checkpoints import build, edit_json, write_json
from gguf_files import HIDDEN, INTERMEDIATE, VOCABULARY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import errors, gather, judge

from gate import ggml
from gate.architecture import Architecture, of_gguf
from gate.checkpoint import find_models, open_checkpoint
from gate.containers import CONTAINERS
from gate.differences import differences
from gate.formats import FORMATS
from gate.lint import lint, walk
from gate.quantization import Role, identify
from gate.rule import Evidence
from gate.rules import RULES, gguf_scale_not_finite
from gate.size import size

MODEL = "model.gguf"
Tensors = dict[str, tuple[str, tuple[int, ...]]]


@pytest.mark.parametrize("kind", gguf_files.STORED, ids=lambda kind: kind.name)
def test_every_rule_is_silent_on_every_type(tmp_path: Path, kind: Any) -> None:
    result = judge(gguf_files.build(tmp_path, kind.name, layers=2))
    assert result.findings == ()
    assert result.format == "gguf"
    assert result.algorithms == (kind.name,)
    assert {skipped.reason for skipped in result.skipped} <= {
        "no reference was named",
        "no --runtime, --gpu or --memory was named",
        "no layer was found that gguf quantized",
    }


def test_every_rule_is_silent_on_the_real_file(tmp_path: Path) -> None:
    real = gguf_files.real_file()
    (tmp_path / real.name).hardlink_to(real)
    result = judge(tmp_path)
    assert (result.findings, result.algorithms) == ((), ("Q4_1", "Q8_0"))


def test_silent_on_a_split_model(tmp_path: Path) -> None:
    gguf_files.build(tmp_path, tensors_per_file=16)
    assert len(list(tmp_path.iterdir())) == 3
    assert judge(tmp_path).findings == ()


def moe(tensors: Tensors) -> None:
    """Experts from the third block on, as in models that begin with dense ones."""
    for layer in range(2, 6):
        for leaf in ("gate", "up", "down"):
            kind, shape = tensors.pop(f"blk.{layer}.ffn_{leaf}.weight")
            tensors[f"blk.{layer}.ffn_{leaf}_exps.weight"] = kind, (4, *shape)
        tensors[f"blk.{layer}.ffn_gate_inp.weight"] = "F32", (4, HIDDEN)


def hybrid(tensors: Tensors) -> None:
    """Every third block attends; the others have a recurrent state."""
    for layer in (0, 1, 3, 4, 6, 7):
        for leaf in ("q", "k", "v", "output"):
            tensors.pop(f"blk.{layer}.attn_{leaf}.weight")
        tensors[f"blk.{layer}.ssm_in.weight"] = "Q8_0", (2 * HIDDEN, HIDDEN)


def without(*names: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in names:
            tensors.pop(name)

    return change


def stored(name: str, kind: str, shape: tuple[int, ...]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: (kind, shape)})


SOUND: dict[str, dict[str, Any]] = {
    "dense and experts": {"architecture": "deepseek2", "layers": 6, "change": moe},
    "experts": {"architecture": "qwen3moe", "layers": 6, "change": moe},
    "attention and recurrence": {"architecture": "jamba", "layers": 9, "change": hybrid},
    "untied": {"change": stored("output.weight", "Q6_K", (VOCABULARY, HIDDEN))},
    "llama 3's frequencies": {"change": stored("rope_freqs.weight", "F32", (64,))},
    "further tokens left out": {
        "architecture": "glm4moe",
        "metadata": {"glm4moe.block_count": 6, "glm4moe.nextn_predict_layers": 1},
    },
    "the first block without norm": {
        "architecture": "modern-bert",
        "change": without("blk.0.attn_norm.weight"),
    },
    "sentencepiece": {"metadata": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": None}},
    "a special token that is none": {"metadata": {"tokenizer.ggml.padding_token_id": 2**32 - 1}},
    "no file type": {"metadata": {"general.file_type": None}},
    "a guessed file type": {"metadata": {"general.file_type": 1024 + 2}},
    "mixture": {
        "metadata": {"general.file_type": 15},
        "change": stored("blk.1.ffn_down.weight", "Q6_K", (HIDDEN, INTERMEDIATE)),
    },
}


@pytest.mark.parametrize("built", SOUND.values(), ids=SOUND)
def test_silent_on_what_real_models_do(tmp_path: Path, built: dict[str, Any]) -> None:
    assert judge(gguf_files.build(tmp_path, **built)).findings == ()


@pytest.mark.parametrize(
    "metadata",
    [
        {"general.type": "imatrix", "general.architecture": None},
        {"general.type": "adapter", "tokenizer.ggml.model": None},
        {"general.architecture": "clip", "tokenizer.ggml.model": None},
    ],
    ids=["imatrix", "adapter", "projector"],
)
def test_files_beside_a_model_are_no_broken_models(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    change = without("token_embd.weight", "blk.1.attn_q.weight")
    gguf_files.build(tmp_path, change=change, metadata=metadata)
    assert judge(tmp_path).findings == ()


def test_the_original_s_configuration_beside_the_file_declares_nothing(tmp_path: Path) -> None:
    gguf_files.build(tmp_path)
    declared = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    write_json(tmp_path / "config.json", {"model_type": "x", "quantization_config": declared})
    assert judge(tmp_path).findings == ()
    assert gather(tmp_path).checkpoint.quantization_config is None


def patched(old: bytes, new: bytes, count: int = 1) -> Callable[[Path], None]:
    """Other bytes in place of some, once or each time."""

    def damage(path: Path) -> None:
        file = path / MODEL
        content = file.read_bytes()
        assert content.count(old) >= count
        file.write_bytes(content.replace(old, new, count))

    return damage


def type_of(name: str, shape: tuple[int, ...], old: int, new: int) -> Callable[[Path], None]:
    offset = 0  # the first tensor's
    dimensions = tuple(reversed(shape))
    return patched(
        gguf_files.entry(name, dimensions, old, offset),
        gguf_files.entry(name, dimensions, new, offset),
    )


def cut(path: Path) -> None:
    file = path / MODEL
    file.write_bytes(file.read_bytes()[:-4000])


def renamed(path: Path) -> None:
    for number in (1, 2, 3):
        file = path / f"model-{number:05}-of-00003.gguf"
        file.rename(path / f"model-{number:05}-of-00004.gguf")
    (path / "model-00004-of-00004.gguf").write_bytes(gguf_files.padded(gguf_files.header(), 0))


def lost_tensors(path: Path) -> None:
    count = b"split.tensors.count"
    for file in path.iterdir():
        raw = file.read_bytes()
        at = raw.index(count) + len(count) + 4
        file.write_bytes(raw[:at] + (99).to_bytes(4, "little") + raw[at + 4 :])


def nothing(path: Path) -> None:
    pass


def scale(kind: str, code: bytes) -> Callable[[Path], None]:
    """Another scale in the last block of blk.3.ffn_up."""

    def damage(path: Path) -> None:
        info = gather(path).checkpoint.tensors["blk.3.ffn_up.weight"]
        block = ggml.block(kind)
        assert block is not None
        begin = info.data_offsets[1] - block.nbytes + ggml.SCALE_FIELDS[kind].offset
        with (path / MODEL).open("r+b") as file:
            file.seek(begin)
            file.write(code)

    return damage


EMBEDDING = "token_embd.weight", (VOCABULARY, HIDDEN)
NAN = b"\xff\x7f"
FEW = {"tokenizer.ggml.tokens": ["a"] * 290, "tokenizer.ggml.token_type": None}
DEFECTS: list[tuple[str, dict[str, Any], Callable[[Path], None], str]] = [
    ("header-unreadable", {}, patched(b"GGUF", b"GGML"), "GGML"),
    ("shard-truncated", {}, cut, "ends early"),
    ("tensor-misplaced", {"kind": "Q4_0"}, type_of(*EMBEDDING, 2, 3), "blk.0.attn_norm.weight"),
    ("unknown-tensor-type", {}, type_of(*EMBEDDING, 12, 139), "IQ4_K: only ik_llama.cpp"),
    ("unknown-tensor-type", {}, type_of(*EMBEDDING, 12, 4), "Q4_2: ggml has no such"),
    ("unknown-tensor-type", {}, type_of(*EMBEDDING, 12, 77), "type 77"),
    ("split-incomplete", {"tensors_per_file": 16}, renamed, "number 1, counted from 0"),
    ("split-incomplete", {"tensors_per_file": 16}, lost_tensors, "says 99"),
    ("architecture-unknown", {"architecture": "llama9"}, nothing, "'llama9'"),
    ("tensor-missing-for-architecture", {"metadata": {"llama.block_count": 7}}, nothing, "blk.5"),
    (
        "tensor-missing-for-architecture",
        {"metadata": {"llama.block_count": 2**32 - 1}},
        nothing,
        "4,294,967,290 are not stored",
    ),
    (
        "tensor-missing-for-architecture",
        {"change": without("blk.4.ffn_up.weight")},
        nothing,
        "blk.4 has no ffn_up.weight",
    ),
    (
        "tensor-missing-for-architecture",
        {"architecture": "olmo2", "change": without("blk.2.attn_k.weight", "blk.2.ffn_up.weight")},
        nothing,
        "attn_k.weight nor 1 other",
    ),
    (
        "tensor-missing-for-architecture",
        {"architecture": "qwen3moe", "layers": 6, "change": lambda tensors: (
            moe(tensors), tensors.pop("blk.5.ffn_down_exps.weight"))},
        nothing,
        "blk.5.ffn_down_exps.weight",
    ),
    (
        "tensor-missing-for-architecture",
        {"change": without("output_norm.weight")},
        nothing,
        "no output_norm.weight",
    ),
    ("tokenizer-pre-missing", {"metadata": {"tokenizer.ggml.pre": None}}, nothing, "missing"),
    ("tokenizer-pre-missing", {"metadata": {"tokenizer.ggml.pre": "default"}}, nothing, "default"),
    ("tokenizer-missing", {"metadata": {"tokenizer.ggml.model": None}}, nothing, "tokenizer"),
    ("vocabulary-mismatch", {"metadata": FEW}, nothing, "300 rows for 290 tokens"),
    (
        "vocabulary-mismatch",
        {"metadata": {"tokenizer.ggml.eos_token_id": VOCABULARY}},
        nothing,
        "eos_token_id is 300",
    ),
    (
        "vocabulary-mismatch",
        {"metadata": {"tokenizer.ggml.token_type": [1] * 299}},
        nothing,
        "token_type has 299",
    ),
    ("type-fallback", {"kind": "Q5_0", "metadata": {"general.file_type": 15}}, nothing, "Q4_K_M"),
    ("gguf-scale-not-finite", {}, scale("Q4_K", NAN), "1 of 512 blocks, block 511"),
    ("gguf-scale-not-finite", {"kind": "Q6_K"}, scale("Q6_K", b"\0\x7c"), "Q6_K"),
    ("gguf-scale-not-finite", {"kind": "IQ3_S"}, scale("IQ3_S", NAN), "IQ3_S"),
    ("gguf-scale-not-finite", {"kind": "MXFP4"}, scale("MXFP4", b"\xff"), "MXFP4"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "built", "damage", "named"),
    DEFECTS,
    ids=[f"{number}-{defect[0]}" for number, defect in enumerate(DEFECTS)],
)
def test_flags_the_defect_and_nothing_else(
    tmp_path: Path,
    rule: str,
    built: dict[str, Any],
    damage: Callable[[Path], None],
    named: str,
) -> None:
    path = gguf_files.build(tmp_path, **built)
    damage(path)
    findings = judge(path).findings
    assert {finding.rule for finding in findings} == {rule}
    assert named in " ".join(f"{finding.message} {finding.tensor}" for finding in findings)


def test_only_ik_llama_cpp_s_types_are_a_warning(tmp_path: Path) -> None:
    path = gguf_files.build(tmp_path)
    type_of(*EMBEDDING, 12, 139)(path)
    assert errors(path) == set()


def test_rows_that_no_block_divides(tmp_path: Path) -> None:
    """Written as Q8_0, whose blocks divide the rows, and called Q4_K then."""
    gguf_files.build(
        tmp_path, "Q8_0", change=stored("blk.2.ffn_up.weight", "Q8_0", (INTERMEDIATE, 32))
    )
    content = (tmp_path / MODEL).read_bytes()
    at = content.index(b"blk.2.ffn_up.weight") + len("blk.2.ffn_up.weight") + 4 + 16
    assert content[at] == 8
    (tmp_path / MODEL).write_bytes(content[:at] + b"\x0c" + content[at + 1 :])
    (found,) = judge(tmp_path).findings
    assert found.rule == "row-not-divisible"
    assert "rows of 32; Q4_K stores 256" in found.message


def test_a_missing_file_of_a_series_is_named(tmp_path: Path) -> None:
    gguf_files.build(tmp_path, tensors_per_file=16)
    (tmp_path / "model-00002-of-00003.gguf").unlink()
    assert errors(tmp_path) == {"shard-missing"}


def test_large_models_are_read_in_part_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gguf_files.build(tmp_path)
    monkeypatch.setattr(gguf_scale_not_finite, "MOST_BYTES", 300_000)
    monkeypatch.setattr(gguf_scale_not_finite, "WINDOW_BYTES", 10_000)
    scale("Q4_K", NAN)(path)
    result = judge(path)
    assert result.findings == ()
    reasons = {skipped.rule: skipped.reason for skipped in result.skipped}
    assert reasons["gguf-scale-not-finite"].startswith("only in part: one in 6 ")


def test_layers_are_the_quantized_tensors(tmp_path: Path) -> None:
    evidence = gather(gguf_files.build(tmp_path, "Q6_K", layers=1))
    layer = evidence.layer_of["blk.0.ffn_down"]
    assert len(evidence.layers) == 8
    assert layer.shape == layer.tensors[Role.WEIGHT].shape == (HIDDEN, INTERMEDIATE)
    assert layer.scheme is not None
    assert (layer.scheme.num_bits, layer.scheme.group_size) == (6, 256)
    assert evidence.form is not None
    assert evidence.form.weight_bits(evidence.checkpoint) == 6


def test_weighs_weights_as_the_model_counts_them(tmp_path: Path) -> None:
    evidence = gather(gguf_files.build(tmp_path, "IQ4_XS", layers=1))
    weighed = size(evidence.checkpoint, evidence.form)
    matrices = VOCABULARY * HIDDEN + 3 * HIDDEN * INTERMEDIATE + 3 * HIDDEN * HIDDEN
    assert weighed.parameters == matrices + 3 * HIDDEN
    assert weighed.linear_bits_per_weight == pytest.approx(4.25)
    assert weighed.by_class.keys() == {"embedding", "attention", "mlp", "norm"}


def test_the_file_s_own_figures_are_the_architecture(tmp_path: Path) -> None:
    model = gather(gguf_files.build(tmp_path)).architecture
    assert (model.model_type, model.layers, model.hidden) == ("llama", 5, HIDDEN)
    assert (model.attention_heads, model.kv_heads, model.head_dim) == (8, 4, 32)
    assert model.vocabulary == VOCABULARY


@pytest.mark.parametrize(
    ("metadata", "figure", "value"),
    [
        ({"a.attention.head_count_kv": [2, 8, 2]}, "num_key_value_heads", 8),
        ({"a.attention.key_length": 192}, "head_dim", 192),
        ({"a.vocab_size": 7}, "vocab_size", 7),
        ({"a.rope.dimension_count": 64}, "qk_rope_head_dim", None),
    ],
)
def test_figures_that_are_written_otherwise(
    metadata: dict[str, Any], figure: str, value: int | None
) -> None:
    assert of_gguf({"general.architecture": "a", **metadata}).get(figure) == value


KEYS = (
    "general.architecture", "general.type", "general.file_type", "general.alignment",
    "llama.block_count", "llama.nextn_predict_layers", "llama.attention.head_count",
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template",
    "split.no", "split.count", "split.tensors.count",
)  # fmt: skip
NUMBERS = st.builds(lambda value: (10, struct.pack("<Q", value)), st.integers(0, 2**64 - 1))
SIGNED = st.builds(lambda value: (11, struct.pack("<q", value)), st.integers(-(2**63), 2**63 - 1))
FLOATS = st.builds(lambda value: (12, struct.pack("<d", value)), st.floats())
TEXTS = st.builds(lambda value: (8, gguf_files.text(value)), st.sampled_from(["llama", "", "é"]))
LISTS = st.builds(
    lambda count: (9, struct.pack("<IQ", 0, count) + bytes(count)), st.sampled_from([0, 3, 5000])
)
STRINGS = st.builds(
    lambda count: (9, struct.pack("<IQ", 8, count) + bytes(8 * count)), st.sampled_from([1, 300])
)
VALUES = st.one_of(NUMBERS, SIGNED, FLOATS, TEXTS, LISTS, STRINGS)
TENSORS = st.lists(
    st.builds(
        lambda name, dimensions, kind: gguf_files.entry(name, dimensions, kind),
        st.sampled_from(["token_embd.weight", "blk.0.attn_q.weight", "blk.999999.x", "", "a\n"]),
        st.lists(st.sampled_from([1, 7, 32, 256]), max_size=4),
        st.integers(0, 45),
    ),
    max_size=3,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES), TENSORS)
def test_no_rule_stumbles_over_keys_of_other_types(
    tmp_path: Path, keys: dict[str, tuple[int, bytes]], tensors: list[bytes]
) -> None:
    pairs = [gguf_files.key_value(key, *value) for key, value in keys.items()]
    head = gguf_files.header(tensors, pairs)
    (tmp_path / MODEL).write_bytes(gguf_files.padded(head, 4096))
    assert judge(tmp_path).format == "gguf"


def test_models_in_one_directory_are_judged_each(tmp_path: Path) -> None:
    """As `gate lint DIR` does: two variants of one model."""
    gguf_files.build(tmp_path, "Q4_K", name="a-Q4_K.gguf")
    gguf_files.build(tmp_path, "Q8_0", name="a-Q8_0.gguf", metadata={"tokenizer.ggml.pre": None})
    names = [name.name for name in tmp_path.iterdir()]
    found = {}
    for only in find_models(sorted(names), CONTAINERS):
        checkpoint = open_checkpoint(tmp_path, CONTAINERS, only=only)
        form = identify(checkpoint, FORMATS)
        evidence = Evidence(checkpoint, form, walk(checkpoint, form))
        findings = lint(evidence, RULES, {}).findings
        found[only] = {finding.rule for finding in findings}
    assert found == {("a-Q4_K.gguf",): set(), ("a-Q8_0.gguf",): {"tokenizer-pre-missing"}}


@pytest.mark.parametrize(
    ("metadata", "about"),
    [
        ({"tokenizer.chat_template": "{{ messages }}"}, set()),
        ({}, {"chat_template"}),
        ({"tokenizer.ggml.tokens": ["a"] * 290}, {"chat_template", "vocabulary"}),
    ],
    ids=["same", "no template", "fewer tokens"],
)
def test_is_compared_with_the_original_s_files(
    tmp_path: Path, metadata: dict[str, Any], about: set[str]
) -> None:
    original = build(tmp_path / "original", algo=None)
    edit_json(original, "config.json", lambda config: config.update(vocab_size=VOCABULARY))
    (original / "chat_template.jinja").write_text("{{ messages }}\n")
    here = gguf_files.build(tmp_path / "here", metadata=metadata)
    opened = [open_checkpoint(path, CONTAINERS) for path in (here, original)]
    assert {found.about for found in differences(*opened)} == about


@pytest.mark.parametrize("name", [None, 5, ["llama"]])
def test_keys_of_wrong_types_say_nothing(name: Any) -> None:
    assert Architecture(of_gguf({"general.architecture": name})).layers is None
