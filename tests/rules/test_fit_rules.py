"""The rules that judge where a checkpoint is meant to run."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import build, edit_json, edit_tensors, f32, fp8
from compressed_checkpoints import compressed
from judging import gather

from gate import fit as fitting
from gate.lint import lint
from gate.records import Finding, LintResult, Target
from gate.rules import RULES

ABOUT_TARGETS = {
    "runtime-unsupported-algo",
    "hardware-unsupported-algo",
    "tensor-parallel-splits-group",
    "does-not-fit-in-memory",
}


def judge_for(path: Path, **target: Any) -> LintResult:
    """Lint with a target, the rules about targets only."""
    evidence = gather(path)
    found = fitting.fit(evidence.checkpoint, evidence.form, evidence.layers, Target(**target))
    return lint(replace(evidence, fit=found), RULES, {}, select=ABOUT_TARGETS)


def findings(path: Path, **target: Any) -> list[Finding]:
    """What the rules about targets find."""
    return list(judge_for(path, **target).findings)


def the(found: list[Finding], rule: str, severity: str = "error") -> Finding:
    """The one finding, of this rule and severity."""
    (finding,) = found
    assert (finding.rule, finding.severity) == (rule, severity)
    return finding


@pytest.mark.parametrize(
    "target",
    [
        {"runtime": "vllm", "gpu": "h100", "context": 8192, "concurrency": 4},
        {"runtime": "vllm", "gpu": "a100", "tensor_parallel": 2},
        {"runtime": "vllm", "gpu": "b300", "tensor_parallel": 4},
        {"runtime": "tensorrt-llm", "gpu": "b200", "tensor_parallel": 2},
        {"runtime": "sglang", "gpu": "l40s"},
        {"runtime": "vllm"},
        {"gpu": "mi300x", "context": 4096},
        {"memory_bytes": 8 * 10**9, "context": 4096},
    ],
    ids=str,
)
@pytest.mark.parametrize("algo", ["FP8", "NVFP4", "MIXED_PRECISION", None])
def test_silent_where_it_runs(tmp_path: Path, algo: str | None, target: dict[str, Any]) -> None:
    assert findings(build(tmp_path / "tiny", algo), **target) == []


def test_skipped_without_a_target(tmp_path: Path) -> None:
    result = lint(gather(build(tmp_path / "tiny")), RULES, {}, select=ABOUT_TARGETS)
    assert {entry.rule for entry in result.skipped} == ABOUT_TARGETS


def test_runtime_unsupported_algo(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "tiny"), runtime="transformers", gpu="h100")
    finding = the(found, "runtime-unsupported-algo")
    assert "transformers 5.23 does not load FP8" in finding.message
    assert "scales are ignored" in finding.message
    assert "https://" in finding.message


def test_runtime_unsupported_algo_for_another_kind_of_file(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "tiny", None), runtime="llama.cpp")
    assert "GGUF files only" in the(found, "runtime-unsupported-algo").message


def test_hardware_unsupported_algo(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "tiny"), runtime="tensorrt-llm", gpu="a100")
    finding = the(found, "hardware-unsupported-algo")
    assert "does not load FP8 on NVIDIA A100" in finding.message


def test_a_kernel_that_decodes_is_no_defect(tmp_path: Path) -> None:
    assert findings(build(tmp_path / "tiny", "NVFP4"), runtime="vllm", gpu="h100") == []


def heads(count: int) -> Callable[[dict[str, Any]], object]:
    """As many heads, keys and values included."""
    return lambda config: config.update(num_attention_heads=count, num_key_value_heads=count)


def test_tensor_parallel_splits_a_group(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4", layers=3)
    edit_json(path, "config.json", heads(8))
    assert findings(path, tensor_parallel=4) == []
    finding = the(findings(path, tensor_parallel=8), "tensor-parallel-splits-group")
    assert "o_proj: 64 in_features on 8 devices are 8 each" in finding.message
    assert "no multiple of the 16 of a group (3 layers)" in finding.message
    assert finding.tensor == "model.layers.0.self_attn.o_proj.weight"


def test_tensor_parallel_splits_a_block(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "FP8_PB_WO", layers=1)
    found = findings(path, tensor_parallel=2)
    assert {finding.rule for finding in found} == {"tensor-parallel-splits-group"}
    text = " ".join(finding.message for finding in found)
    assert "down_proj: 128 in_features on 2 devices are 64 each" in text
    assert "gate_proj: 128 out_features on 2 devices are 64 each" in text
    assert "rows of a block" in text
    assert "columns of a block" in text


def test_key_and_value_heads_are_repeated_before_blocks_are_counted(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "FP8_PB_WO", layers=1)
    keys = "model.layers.0.self_attn.k_proj"

    def widen(tensors: dict[str, Any]) -> None:
        tensors[f"{keys}.weight"] = fp8((256, 64))
        tensors[f"{keys}.weight_scale"] = f32((2, 1, 1, 1))

    edit_tensors(path, widen)
    edit_json(
        path,
        "config.json",
        lambda config: config.update(num_attention_heads=8, num_key_value_heads=2, head_dim=128),
    )
    found = findings(path, tensor_parallel=8)
    assert not any("k_proj" in finding.message for finding in found)


def test_experts_are_split_like_any_layer(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4", experts=2)
    edit_json(path, "config.json", heads(16))
    text = " ".join(finding.message for finding in findings(path, tensor_parallel=16))
    assert "down_proj: 128 in_features on 16 devices are 8 each" in text
    assert "(4 layers)" in text


def test_tensor_parallel_splits_a_row(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "FP8")
    edit_json(path, "config.json", heads(3))
    text = " ".join(finding.message for finding in findings(path, tensor_parallel=3))
    assert "o_proj: 64 in_features are not divisible by 3 (2 layers)" in text


@pytest.mark.parametrize(
    ("symmetric", "leaves"), [(True, set()), (False, {"q_proj", "k_proj", "v_proj"})]
)
def test_tensor_parallel_splits_a_word_of_zero_points(
    tmp_path: Path, symmetric: bool, leaves: set[str]
) -> None:
    scheme = {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": symmetric}
    path = compressed(tmp_path / "tiny", {"weights": scheme})
    edit_json(path, "config.json", heads(16))
    found = findings(path, tensor_parallel=16)
    cut = {f.message.partition(":")[0] for f in found if "one element packs" in f.message}
    assert cut == leaves


def test_tensor_parallel_splits_a_word_of_weights(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "W4A16_AWQ")
    edit_json(path, "config.json", heads(32))
    text = " ".join(finding.message for finding in findings(path, tensor_parallel=32))
    assert "k_proj: 32 out_features on 32 devices are 1 each" in text
    assert "the 2 that one element packs" in text


def test_gate_and_up_in_one_tensor_are_split_each(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "FP8_PB_WO", layers=1)
    joined = "model.layers.0.mlp.gate_up_proj"

    def join(tensors: dict[str, Any]) -> None:
        tensors[f"{joined}.weight"] = fp8((512, 64))
        tensors[f"{joined}.weight_scale"] = f32((4, 1, 1, 1))

    edit_tensors(path, join)
    edit_json(path, "config.json", heads(4))
    assert "gate_up_proj" not in _text(findings(path, tensor_parallel=2))
    assert "gate_up_proj: 256 out_features on 4" in _text(findings(path, tensor_parallel=4))


def _text(found: list[Finding]) -> str:
    return " ".join(finding.message for finding in found)


def test_mxfp4_is_padded_by_runtimes(tmp_path: Path) -> None:
    """gpt-oss has 2,880 features: 360 on each of 8 devices, in groups of 32."""
    path = build(tmp_path / "tiny", None, layers=1)
    experts = "model.layers.0.mlp.experts"
    added = {
        f"{experts}.{leaf}_{suffix}": ("U8", shape, bytes([1]) * math.prod(shape))
        for leaf, rows, groups in (("down_proj", 64, 3), ("gate_up_proj", 192, 2))
        for suffix, shape in (("blocks", (2, rows, groups, 16)), ("scales", (2, rows, groups)))
    }
    edit_tensors(path, lambda tensors: tensors.update(added))
    declared = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    edit_json(path, "config.json", lambda value: value.update(quantization_config=declared))
    assert [layer.shape for layer in gather(path).layers if layer.packed]
    assert findings(path, tensor_parallel=2, runtime="vllm", gpu="h100") == []


def test_layers_that_are_declared_unquantized_are_not_asked_for(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", exclude=("*",))
    assert findings(path, runtime="tensorrt-llm", gpu="a100") == []
    assert findings(path, runtime="vllm", gpu="h100") == []


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**4000},
        {"head_dim": 10**4000},
        {"kv_lora_rank": 10**4000},
        {"num_attention_heads": 10**4000},
        {"sliding_window": 10**4000},
    ],
    ids=lambda config: next(iter(config)),
)
def test_absurd_figures_can_be_reported(tmp_path: Path, config: dict[str, Any]) -> None:
    path = build(tmp_path / "tiny")
    edit_json(path, "config.json", lambda value: value.update(config))
    edit_json(
        path,
        "hf_quant_config.json",
        lambda value: value["quantization"].update(kv_cache_quant_algo="FP8"),
    )
    assert findings(path, runtime="vllm", tensor_parallel=7, context=9, memory_bytes=1)


def test_tensor_parallel_splits_heads(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    finding = the(findings(path, tensor_parallel=8), "tensor-parallel-splits-group")
    assert "4 attention heads are not divisible by 8" in finding.message
    edit_json(
        path,
        "config.json",
        lambda config: config.update(num_attention_heads=12, num_key_value_heads=4),
    )
    finding = the(findings(path, tensor_parallel=6), "tensor-parallel-splits-group")
    assert "4 key and value heads" in finding.message


def test_runtimes_that_divide_layers_split_nothing(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    assert findings(path, runtime="transformers", tensor_parallel=7) == []


def test_does_not_fit_in_memory(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    edit_json(path, "config.json", lambda config: config.update(num_hidden_layers=8000))
    found = findings(path, memory_bytes=36 * 10**9, context=8192, concurrency=16)
    finding = the(found, "does-not-fit-in-memory")
    assert finding.message == (
        "it needs 136.9 GB (weights 0.0, KV cache 134.2 for 8,192 x 16, workspace 2.7); "
        "36.0 GB are there"
    )


def test_each_device_is_judged(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    edit_json(path, "config.json", lambda config: config.update(num_hidden_layers=8000))
    target = {"gpu": "h100", "runtime": "vllm", "context": 8192, "concurrency": 16}
    assert findings(path, **target, tensor_parallel=2) == []
    found = findings(path, **(target | {"concurrency": 64}), tensor_parallel=2)
    assert "each of 2 devices needs" in the(found, "does-not-fit-in-memory").message


def test_an_allowance_alone_is_a_warning(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "tiny"), memory_bytes=2 * 10**9)
    the(found, "does-not-fit-in-memory", "warning")


def test_a_bound_alone_is_a_warning(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    edit_json(
        path,
        "config.json",
        lambda config: config.update(num_hidden_layers=8000, sliding_window=4096),
    )
    found = findings(path, memory_bytes=36 * 10**9, context=8192, concurrency=16)
    assert "at most 134.2" in the(found, "does-not-fit-in-memory", "warning").message
