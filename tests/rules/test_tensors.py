"""Rules that hold the tensors against the declaration: each flags its defect and no other does."""

from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_declarations, edit_json, edit_tensors
from judging import judge

from gate.records import Finding

Q = "model.layers.1.self_attn.q_proj"
UP = "model.layers.0.mlp.up_proj"


def only(path: Path, rule: str, severity: str) -> Finding:
    """The one finding of all rules; notes of others do not matter."""
    findings = judge(path).findings
    (finding,) = [one for one in findings if one.rule == rule or one.severity != "note"]
    assert (finding.rule, finding.severity) == (rule, severity)
    assert finding.fix.endswith((".", ")"))
    return finding


def rules(path: Path) -> set[str]:
    return {finding.rule for finding in judge(path).findings}


def loud(path: Path) -> set[str]:
    """The rules that find more than a note."""
    return {finding.rule for finding in judge(path).findings if finding.severity != "note"}


def put(path: Path, name: str, tensor: checkpoints.Tensor) -> None:
    edit_tensors(path, lambda tensors: tensors.update({name: tensor}))


def replaced_layer(path: Path, module: str, algo: str | None, shape: tuple[int, int]) -> None:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(f"{module}.")]:
            del tensors[name]
        tensors.update(checkpoints.linear(module, algo, shape))

    edit_tensors(path, change)


def test_orphan_scale(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4")
    edit_tensors(tmp_path, lambda tensors: tensors.pop(f"{Q}.weight"))
    finding = only(tmp_path, "orphan-scale", "error")
    assert "weight_scale_2" in finding.message


def test_scales_of_an_excluded_module_are_named_once(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, tied=False)
    put(tmp_path, "lm_head.input_scale", checkpoints.f32(()))
    assert only(tmp_path, "excluded-but-quantized", "error").tensor.startswith("lm_head.")


@pytest.mark.parametrize("shape", [(64,), (2,), (0,)])
def test_scalar_scale_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    checkpoints.build(tmp_path)
    put(tmp_path, f"{Q}.input_scale", checkpoints.f32(shape))
    assert "scalar-scale-shape" in rules(tmp_path)
    assert "scale-shape" not in rules(tmp_path)


def test_one_value_a_channel_is_no_scalar(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8_PER_CHANNEL_PER_TOKEN")
    put(tmp_path, f"{Q}.weight_scale", checkpoints.f32((32,)))
    assert "[64]" in only(tmp_path, "scale-shape", "error").message


@pytest.mark.parametrize(
    ("algo", "module", "shape", "how"),
    [
        ("NVFP4", UP, (64, 128), "transposed"),
        ("NVFP4", UP, (128, 32), "packed twice"),
        ("FP8", "model.layers.0.mlp.down_proj", (128, 64), "transposed"),
        ("FP8", "model.layers.0.self_attn.q_proj", (48, 64), "64 and 64"),
        ("FP8", "model.layers.0.self_attn.o_proj", (64, 32), "packed twice"),
    ],
)
def test_dims_vs_config(
    tmp_path: Path, algo: str, module: str, shape: tuple[int, int], how: str
) -> None:
    checkpoints.build(tmp_path, algo)
    replaced_layer(tmp_path, module, algo, shape)
    finding = only(tmp_path, "dims-vs-config", "error")
    assert finding.tensor == f"{module}.weight"
    assert how in finding.message


def test_dims_vs_config_of_an_expert(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4", experts=4)
    module = "model.layers.1.mlp.experts.3.gate_proj"
    replaced_layer(tmp_path, module, "NVFP4", (64, 64))
    assert only(tmp_path, "dims-vs-config", "error").tensor == f"{module}.weight"


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_dims_vs_config_of_embedding_and_head(tmp_path: Path, name: str) -> None:
    checkpoints.build(tmp_path, tied=False)
    put(tmp_path, name, checkpoints.bf16((checkpoints.VOCAB, 80)))
    assert only(tmp_path, "dims-vs-config", "error").tensor == name


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3_5"},  # queries carry their gate
        {"model_type": "gemma4", "global_head_dim": 32},
        {"model_type": "deepseek_v3", "kv_lora_rank": 16},
        {"model_type": "nemotron-nas", "block_configs": [{}, {}]},
        {"model_type": None},
        {"architectures": ["LlamaForCausalLMEagle3"]},
        {"head_dim": "wide", "num_attention_heads": 0},
        {"intermediate_size": [128, 128]},
        {"num_key_value_heads": None},
    ],
    ids=str,
)
def test_models_whose_dimensions_are_their_own_are_not_judged(
    tmp_path: Path, config: dict[str, object]
) -> None:
    checkpoints.build(tmp_path)
    edit_json(tmp_path, "config.json", lambda found: found.update(config))
    replaced_layer(tmp_path, "model.layers.0.self_attn.q_proj", "FP8", (128, 64))
    assert "dims-vs-config" not in rules(tmp_path)


def test_a_head_dim_of_its_own_is_sound(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, layers=1)
    edit_json(tmp_path, "config.json", lambda found: found.update(head_dim=32))
    for leaf, shape in (("q", (128, 64)), ("k", (64, 64)), ("v", (64, 64)), ("o", (64, 128))):
        replaced_layer(tmp_path, f"model.layers.0.self_attn.{leaf}_proj", "FP8", shape)
    assert loud(tmp_path) == set()


def test_fused_siblings_mixed_by_exclusion(tmp_path: Path) -> None:
    checkpoints.build(tmp_path)
    edit_declarations(
        tmp_path,
        lambda body: body.get("exclude_modules", body.get("ignore")).append(Q),
    )
    replaced_layer(tmp_path, Q, None, (64, 64))
    finding = only(tmp_path, "fused-siblings-mixed", "error")
    assert f"{Q} unquantized" in finding.message
    assert "k_proj FP8" in finding.message


def test_fused_siblings_mixed_by_algorithm(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")
    edit_declarations(
        tmp_path, lambda body: body["quantized_layers"].update({UP: {"quant_algo": "FP8"}})
    )
    replaced_layer(tmp_path, UP, "FP8", (128, 64))
    assert "up_proj FP8" in only(tmp_path, "fused-siblings-mixed", "error").message


def test_layers_that_are_not_joined_may_differ(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "MIXED_PRECISION")
    down = "model.layers.0.mlp.down_proj"
    edit_declarations(
        tmp_path, lambda body: body["quantized_layers"].update({down: {"quant_algo": "FP8"}})
    )
    replaced_layer(tmp_path, down, "FP8", (64, 128))
    assert loud(tmp_path) == set()


@pytest.mark.parametrize(
    "name",
    [
        f"{Q}.weight_quantizer._amax",
        f"{Q}.weight_quantizer._scale",
        f"{Q}._double_scale",
        f"{Q}.input_quantizer._pre_quant_scale",
    ],
)
def test_leaked_buffer(tmp_path: Path, name: str) -> None:
    checkpoints.build(tmp_path)
    put(tmp_path, name, checkpoints.f32(()))
    finding = only(tmp_path, "leaked-buffer", "error")
    assert finding.tensor == name
    assert "0.46" in finding.fix


def test_leaked_low_rank_parts_are_a_note(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, None)
    put(tmp_path, f"{Q}.weight_quantizer._svdquant_lora_a", checkpoints.bf16((32, 64)))
    assert only(tmp_path, "leaked-buffer", "note").tensor.endswith("_lora_a")


def test_unexpected_scale(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "W4A16_NVFP4")
    put(tmp_path, f"{Q}.input_scale", checkpoints.f32(()))
    assert only(tmp_path, "unexpected-scale", "warning").tensor == f"{Q}.input_scale"


def test_unexpected_global_scale(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8")
    put(tmp_path, f"{Q}.weight_scale_2", checkpoints.f32(()))
    assert only(tmp_path, "unexpected-scale", "warning").tensor == f"{Q}.weight_scale_2"


@pytest.mark.parametrize("algo", ["FP8", "NVFP4"])
def test_pre_quant_scale_undeclared(tmp_path: Path, algo: str) -> None:
    checkpoints.build(tmp_path, algo)
    put(tmp_path, f"{Q}.pre_quant_scale", checkpoints.bf16((64,), 1.0))
    assert only(tmp_path, "pre-quant-scale-undeclared", "error").tensor == f"{Q}.pre_quant_scale"


def test_partial_block(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8_PB_WO")
    for module in ("model.layers.0.mlp.experts", UP):
        put(tmp_path, f"{module}.bias", checkpoints.bf16((4,)))
    found = [f for f in judge(tmp_path).findings if f.rule == "partial-block"]
    assert found
    assert {finding.severity for finding in found} == {"warning"}
    assert "128 by 128" in found[0].message


def test_whole_blocks_are_silent(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8_PB_WO", layers=0)
    edit_json(tmp_path, "config.json", lambda config: config.update(num_hidden_layers=1))
    replaced_layer(tmp_path, "model.layers.0.self_attn.q_a_proj", "FP8_PB_WO", (256, 384))
    assert "partial-block" not in rules(tmp_path)


def test_bits_per_weight(tmp_path: Path) -> None:
    """Called NVFP4, and the MLP is FP8, as in a public checkpoint."""
    checkpoints.build(tmp_path, "NVFP4")
    for layer in range(2):
        for leaf, shape in (("gate", (128, 64)), ("up", (128, 64)), ("down", (64, 128))):
            replaced_layer(tmp_path, f"model.layers.{layer}.mlp.{leaf}_proj", "FP8", shape)
    result = judge(tmp_path)
    assert loud(tmp_path) == {"weight-dtype", "bits-per-weight"}
    (finding,) = (found for found in result.findings if found.rule == "bits-per-weight")
    assert finding.severity == "warning"
    assert "6." in finding.message
    assert "4.50 are nominal" in finding.message


def test_lm_head_quantized(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, tied=False, exclude=())
    replaced_layer(tmp_path, "lm_head", "FP8", (checkpoints.VOCAB, checkpoints.HIDDEN))
    assert only(tmp_path, "lm-head-quantized", "note").tensor.startswith("lm_head.")
