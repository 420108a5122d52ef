"""Rules about files and configuration: each flags its defect, and what looks like one is none."""

import json
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_declarations, edit_json, edit_tensors
from judging import gather, judge

from gate.lint import lint
from gate.records import Finding, Fit, Target
from gate.rules import RULES

Q = "model.layers.1.self_attn.q_proj"


def found(path: Path, rule: str) -> list[Finding]:
    return [finding for finding in judge(path).findings if finding.rule == rule]


def only(path: Path, rule: str, severity: str) -> Finding:
    """The one finding of all rules; notes of others do not matter."""
    findings = judge(path).findings
    (finding,) = [one for one in findings if one.rule == rule or one.severity != "note"]
    assert (finding.rule, finding.severity) == (rule, severity)
    assert finding.fix.endswith((".", ")"))
    return finding


def loud(path: Path) -> set[str]:
    """The rules that find more than a note."""
    return {finding.rule for finding in judge(path).findings if finding.severity != "note"}


def excluding(*entries: str) -> Callable[[dict], object]:
    def change(body: dict) -> None:
        key = "ignore" if "ignore" in body else "exclude_modules"
        body[key] = [*body[key], *entries]

    return change


def test_stray_weights_file(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, shards=3)
    checkpoints.write_safetensors(tmp_path / "old.safetensors", {"a": checkpoints.bf16((2, 2))})
    finding = only(tmp_path, "stray-weights-file", "note")
    assert finding.file == "old.safetensors"
    assert "index" in finding.message


def test_stray_weights_file_beside_the_single_one(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    checkpoints.write_safetensors(tmp_path / "old.safetensors", {"a": checkpoints.bf16((2, 2))})
    assert "model.safetensors" in only(tmp_path, "stray-weights-file", "note").message


def test_duplicate_tensor_is_named_once_for_two_files(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, shards=3)
    first, second = sorted(path.name for path in tmp_path.glob("*.safetensors"))[:2]
    twice = dict(list(checkpoints.read_safetensors(tmp_path / first).items())[:3])
    edit_tensors(tmp_path, lambda tensors: tensors.update(twice), second)
    finding = only(tmp_path, "duplicate-tensor", "warning")
    assert first in finding.message
    assert second in finding.message
    assert "2 more" in finding.message


def test_duplicate_tensor_hides_no_missing_one(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, shards=3)
    first, second = sorted(path.name for path in tmp_path.glob("*.safetensors"))[:2]
    twice = dict(list(checkpoints.read_safetensors(tmp_path / first).items())[:1])
    edit_tensors(tmp_path, lambda tensors: tensors.update(twice), second)
    edit_json(
        tmp_path, "model.safetensors.index.json", lambda v: v["weight_map"].update(gone=second)
    )
    assert found(tmp_path, "indexed-tensor-absent")


@pytest.mark.parametrize("field", ["vision_config", "audio_config"])
def test_processor_missing(tmp_path: Path, field: str) -> None:
    checkpoints.build(tmp_path)
    edit_json(tmp_path, "config.json", lambda c: c.update({field: {"hidden_size": 64}}))
    assert only(tmp_path, "processor-missing", "warning").pointer == f"/{field}"
    checkpoints.write_json(tmp_path / "preprocessor_config.json", {})
    assert loud(tmp_path) == set()


def test_weights_without_their_tokenizer_are_no_defect_when_named_alone(tmp_path: Path) -> None:
    from gate.checkpoint import open_checkpoint
    from gate.containers import CONTAINERS
    from gate.rule import Evidence

    checkpoints.build(tmp_path, None)
    (tmp_path / "tokenizer.json").unlink()
    checkpoint = open_checkpoint(tmp_path, CONTAINERS, only=("model.safetensors",))
    result = lint(Evidence(checkpoint, None), RULES, {}, select=("tokenizer-missing",))
    assert result.findings == ()


@pytest.mark.parametrize("remote", ["git@github.com:org/name.git", None])
def test_shard_too_large_for_git(tmp_path: Path, remote: str | None) -> None:
    path = sparse(tmp_path / "models" / "one", 2_100_000_000)
    assert found(path, "shard-too-large-for-git") == []
    (tmp_path / ".git").mkdir()
    if remote:
        (tmp_path / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {remote}\n')
    (finding,) = found(path, "shard-too-large-for-git")
    assert finding.severity == "warning"
    assert "2.1 GB" in finding.message


def test_clones_of_the_hub_may_have_large_shards(tmp_path: Path) -> None:
    path = sparse(tmp_path, 2_100_000_000)
    (path / ".git").mkdir()
    (path / ".git" / "config").write_text("url = https://huggingface.co/org/name\n")
    assert found(path, "shard-too-large-for-git") == []


def sparse(path: Path, size: int) -> Path:
    """An unquantized checkpoint with one tensor of that many bytes, none of them on disk."""
    checkpoints.build(path, None)
    entry = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}
    file = path / "model.safetensors"
    checkpoints.write_raw(file, json.dumps({"model.norm.weight": entry}).encode())
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size + size)
    return path


def test_float16_checkpoint(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_json(tmp_path, "config.json", lambda c: c.update(dtype="float16"))
    finding = only(tmp_path, "float16-checkpoint", "warning")
    assert finding.tensor == "model.embed_tokens.weight"

    def stored_so(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name, (dtype, shape, data) in list(tensors.items()):
            tensors[name] = "F16" if dtype == "BF16" else dtype, shape, data

    edit_tensors(tmp_path, stored_so)
    assert loud(tmp_path) == set()


@pytest.mark.parametrize(
    "quantized",
    [{"quant_method": "modelopt", "quant_algo": None}, {"producer": {"name": "modelopt"}}],
)
def test_quantized_but_declared_as_nothing(tmp_path: Path, quantized: dict) -> None:
    checkpoints.build(tmp_path)
    (tmp_path / "hf_quant_config.json").unlink()
    edit_json(tmp_path, "config.json", lambda c: c.update(quantization_config=quantized))
    assert found(tmp_path, "quantized-but-undeclared")


def test_float8_casts_without_scales_are_undeclared(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, None)
    edit_tensors(tmp_path, lambda t: t.update({f"{Q}.weight": checkpoints.fp8((64, 64))}))
    assert only(tmp_path, "quantized-but-undeclared", "error").tensor == f"{Q}.weight"


def test_schema_names_one_of_the_layers_alike_and_all_that_differ(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")

    def change(config: dict) -> None:
        layers = config["quantized_layers"]
        for number, entry in enumerate(layers.values()):
            entry["group_size"] = -1 if number else [number]

    edit_json(tmp_path, "config.json", lambda config: change(config["quantization_config"]))
    pointers = [one.pointer for one in found(tmp_path, "quant-config-schema")]
    first, second = (f"model.layers.0.self_attn.{leaf}_proj/group_size" for leaf in "qk")
    assert len(pointers) == 3  # FP8 and NVFP4 layers with -1
    root = "/quantization_config/quantized_layers"
    assert {f"{root}/{first}", f"{root}/{second}"} <= set(pointers)


def test_configs_disagree_group_size_of_a_layer(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")
    down = "model.layers.0.mlp.down_proj"
    edit_json(
        tmp_path,
        "hf_quant_config.json",
        lambda v: v["quantization"]["quantized_layers"][down].update(group_size=32),
    )
    assert only(tmp_path, "configs-disagree-group-size", "error").tensor == down


def test_configs_disagree_layers_on_the_algorithm(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")
    edit_json(
        tmp_path,
        "hf_quant_config.json",
        lambda v: v["quantization"]["quantized_layers"][Q].update(quant_algo="NVFP4"),
    )
    assert "FP8 against NVFP4" in only(tmp_path, "configs-disagree-layers", "error").message


def test_configs_disagree_kv(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_json(
        tmp_path,
        "hf_quant_config.json",
        lambda v: v["quantization"].update(kv_cache_quant_algo="FP8"),
    )
    assert "NONE against FP8" in only(tmp_path, "configs-disagree-kv", "warning").message


def test_both_shapes_of_the_same_kv_cache_agree(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_json(
        tmp_path,
        "hf_quant_config.json",
        lambda v: v["quantization"].update(kv_cache_quant_algo="FP8"),
    )
    scheme = {"dynamic": False, "num_bits": 8, "type": "float"}
    edit_json(
        tmp_path, "config.json", lambda c: c["quantization_config"].update(kv_cache_scheme=scheme)
    )
    assert found(tmp_path, "configs-disagree-kv") == []


@pytest.mark.parametrize("layers", [{}, None])
def test_mixed_without_layers(tmp_path: Path, layers: dict | None) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")

    def change(config: dict) -> None:
        if layers is None:
            config["quantization_config"].pop("quantized_layers")
        else:
            config["quantization_config"]["quantized_layers"] = layers

    edit_json(tmp_path, "config.json", change)
    assert only(tmp_path, "mixed-without-layers", "error").file == "config.json"


def test_mixed_layers_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")
    edit_json(tmp_path, "hf_quant_config.json", lambda v: v["quantization"].pop("quantized_layers"))
    assert only(tmp_path, "mixed-without-layers", "error").file == "hf_quant_config.json"
    checkpoints.write_json(tmp_path / "quant_cfg.json", {})
    assert loud(tmp_path) == set()


def test_missing_required_field(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4")
    edit_json(tmp_path, "config.json", lambda c: c.pop("quantization_config"))
    assert loud(tmp_path) == set()
    edit_json(
        tmp_path, "hf_quant_config.json", lambda v: v["quantization"].pop("kv_cache_quant_algo")
    )
    finding = only(tmp_path, "missing-required-field", "warning")
    assert "kv_cache_quant_algo" in finding.message
    fit = Fit(target=Target(runtime="vllm"))
    result = lint(gather(tmp_path, fit=fit), RULES, {}, select=("missing-required-field",))
    assert [one.severity for one in result.findings] == ["error"]


def test_required_fields_of_a_file_that_is_not_read_may_be_missing(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4")
    edit_json(tmp_path, "hf_quant_config.json", lambda v: v["quantization"].pop("group_size"))
    assert loud(tmp_path) == set()


def test_tied_and_quantized(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, tied=True, exclude=("model.embed_tokens",))
    assert only(tmp_path, "tied-and-quantized", "note").file == "config.json"


def test_exclude_pattern_unused_is_a_note(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_declarations(tmp_path, excluding("mtp*", "mtp.layers.0*", "model.layers.7.mlp.gate"))
    finding = only(tmp_path, "exclude-pattern-unused", "note")
    assert "3 excluded modules" in finding.message


@pytest.mark.parametrize(
    "entry",
    [
        "model.layers.language_model.layers.1.self_attn*",
        "decoder.model.layers.1.self_attn.*",
        "model.layers.1.self_attn.qq_proj",
        "model.layers.1.self_attn.*_nope",
    ],
)
def test_exclude_pattern_unused_warns_where_the_layer_is_stored(tmp_path: Path, entry: str) -> None:
    checkpoints.build(tmp_path)
    edit_declarations(tmp_path, excluding(entry))
    assert only(tmp_path, "exclude-pattern-unused", "warning").tensor == entry


@pytest.mark.parametrize(
    "entry",
    [
        "model.layers.0.input_layernorm",
        "model.layers.0.input_layernorm*",
        "model.norm.*",
        "*.post_attention_layernorm",
        r"re:model\.layers\.\d+\.input_layernorm",
    ],
)
def test_exclusions_of_stored_modules_are_used(tmp_path: Path, entry: str) -> None:
    checkpoints.build(tmp_path)
    edit_declarations(tmp_path, excluding(entry))
    assert found(tmp_path, "exclude-pattern-unused") == []
    assert loud(tmp_path) == set()


def test_both_names_of_a_language_model_are_used(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_declarations(tmp_path, excluding("language_model.model.layers.0.input_layernorm"))
    assert found(tmp_path, "exclude-pattern-unused") == []
    assert loud(tmp_path) == set()


def with_float_attention(path: Path, entry: str, layers: int = 2) -> None:
    """A sound checkpoint whose first layer's attention is excluded by `entry`."""
    checkpoints.build(path, "NVFP4", layers=layers)
    edit_declarations(path, excluding(entry))

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        prefix = "model.layers.0.self_attn."
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]
        for leaf, rows in (("q", 64), ("k", 32), ("v", 32), ("o", 64)):
            tensors[f"{prefix}{leaf}_proj.weight"] = checkpoints.bf16((rows, 64))

    edit_tensors(path, change)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (r"re:.*layers\.0\.self_attn.*", "expressions"),
        ("*.0.self_attn", "whole names"),
        ("model.layers.0.self_attn", "SGLang"),
    ],
)
def test_unportable_pattern_of_an_excluded_parent(tmp_path: Path, entry: str, named: str) -> None:
    with_float_attention(tmp_path, entry)
    finding = only(tmp_path, "unportable-pattern", "note")
    assert named in finding.message
    assert "model.layers.0.self_attn.k_proj" in finding.message


@pytest.mark.parametrize(
    "entry", ["model.layers.0.self_attn*", "model.layers.0.self_attn.*", "*.0.self_attn.*"]
)
def test_portable_patterns_are_silent(tmp_path: Path, entry: str) -> None:
    with_float_attention(tmp_path, entry)
    assert found(tmp_path, "unportable-pattern") == []
    assert loud(tmp_path) == set()


def test_unportable_pattern_in_a_multimodal_model(tmp_path: Path) -> None:
    with_float_attention(tmp_path, "*.0.self_attn.*")
    edit_json(tmp_path, "config.json", lambda c: c.update(text_config=dict(c)))
    assert "multimodal" in only(tmp_path, "unportable-pattern", "note").message


def test_unportable_pattern_inside_a_quantized_name(tmp_path: Path) -> None:
    """vLLM reads `layers.1` as part of `layers.10`, and `mlp.gate` as part of `mlp.gate_proj`."""
    checkpoints.build(tmp_path, layers=2)
    edit_declarations(tmp_path, excluding("model.layers.1.mlp.gate"))
    edit_tensors(
        tmp_path, lambda t: t.update({"model.layers.1.mlp.gate.weight": checkpoints.bf16((4, 64))})
    )
    finding = only(tmp_path, "unportable-pattern", "note")
    assert "model.layers.1.mlp.gate_proj" in finding.message


def test_many_patterns_cost_no_more_than_their_number(tmp_path: Path) -> None:
    """Patterns are sought in sorted names; expressions stop at a budget."""
    checkpoints.build(tmp_path, layers=40)
    entries = [f"*{number}?nothing[0-9]*" for number in range(6000)]
    entries += [f"model.layers.{number}.nothing" for number in range(6000)]
    edit_declarations(tmp_path, excluding(*entries))
    assert judge(tmp_path).errors == ()
