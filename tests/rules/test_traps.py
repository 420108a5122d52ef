"""What looks like a defect and is none: each was seen in a public checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_declarations, edit_json, edit_tensors
from judging import gather, judge

from gate.lint import lint
from gate.rules import RULES

K = "model.layers.0.self_attn.k_proj"
LISTED = Path(__file__).parents[3] / "shared" / "data" / "hf_quant_config"


def added(*names: str, tensor: checkpoints.Tensor) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, lambda t: t.update(dict.fromkeys(names, tensor)))


def with_all(suffix: str, tensor: checkpoints.Tensor) -> Callable[[Path], None]:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        tensors.update({name: tensor for name in tensors if name.endswith(suffix)})

    return lambda path: edit_tensors(path, change)


def declared(**fields: object) -> Callable[[Path], None]:
    return lambda path: edit_declarations(path, lambda body: body.update(fields))


def without_config_copy(path: Path) -> None:
    edit_json(path, "config.json", lambda config: config.pop("quantization_config"))


def producer(version: str) -> Callable[[Path], None]:
    return lambda path: edit_json(
        path, "hf_quant_config.json", lambda value: value["producer"].update(version=version)
    )


def parents_only(path: Path) -> None:
    """quantized_layers names `…mlp.experts`, not each expert's layers."""

    def change(body: dict) -> None:
        layers = body["quantized_layers"]
        for module in [name for name in layers if ".experts." in name]:
            entry = layers.pop(module)
            layers[module.partition(".experts.")[0] + ".experts"] = entry

    edit_declarations(path, change)


def nested_declaration(path: Path) -> None:
    """A multimodal model: the declaration lies in text_config."""

    def change(config: dict) -> None:
        config["text_config"] = {"quantization_config": config.pop("quantization_config")}

    edit_json(path, "config.json", change)


def native_fp8_beside(path: Path) -> None:
    """DeepSeek-V4: experts by ModelOpt, everything else in the model's own block FP8."""
    own = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    edit_json(path, "config.json", lambda config: config["quantization_config"].update(own))
    edit_declarations(
        path,
        lambda body: [
            body["quantized_layers"].pop(name)
            for name in list(body["quantized_layers"])
            if ".self_attn." in name
        ],
    )


F32_1 = checkpoints.f32((1,), 0.5)
TRAPS: dict[str, tuple[dict[str, object], Callable[[Path], object]]] = {
    "tied head excluded and not stored": ({"exclude": ("lm_head",)}, lambda path: None),
    "exclusions of absent modules": (
        {"exclude": ("lm_head", "mtp*", "model.visual*", "model.layers.9.mlp.gate")},
        lambda path: None,
    ),
    "no copy in config.json": ({}, without_config_copy),
    "no hf_quant_config.json": ({}, lambda path: (path / "hf_quant_config.json").unlink()),
    "no excluded modules listed": (
        {},
        lambda path: (
            edit_json(
                path, "hf_quant_config.json", lambda v: v["quantization"].pop("exclude_modules")
            )
            or without_config_copy(path)
        ),
    ),
    "parents in quantized_layers": (
        {"algo": "MIXED_PRECISION", "experts": 2},
        parents_only,
    ),
    "every layer listed, exclusions in one file only": (
        {"algo": "MIXED_PRECISION"},
        lambda path: edit_json(
            path, "config.json", lambda c: c["quantization_config"].update(ignore=["mtp*"])
        ),
    ),
    "KV cache declared, no scales": ({}, declared(kv_cache_quant_algo="FP8")),
    "KV scales below one": (
        {"layers": 1},
        added(f"{K}.k_scale", f"{K[:-6]}v_proj.v_scale", tensor=checkpoints.f32((), 0.0028)),
    ),
    "KV offsets": ({}, added(f"{K}.k_bias", tensor=checkpoints.bf16((1, 2, 1, 16)))),
    "input scales all one": ({}, with_all(".input_scale", checkpoints.f32((), 1.0))),
    "scalars of shape [1]": ({"algo": "NVFP4"}, with_all(".input_scale", F32_1)),
    "sibling scales differ": ({}, added(f"{K}.weight_scale", tensor=checkpoints.f32((), 0.9))),
    "block scales far below 448": (
        {"algo": "NVFP4"},
        added(f"{K}.weight_scale", tensor=("F8_E4M3", (32, 4), b"\x01" * 128)),
    ),
    "lower-case algorithm": ({"algo": "NVFP4"}, declared(quant_algo="nvfp4")),
    "producer's version is free text": ({}, producer("minimax-m3-mxfp8-nvfp4-mixed")),
    "nested producer of a development build": ({}, producer("0.0.1.dev538+g26cad678d")),
    "group size of 32": (
        {"algo": "W4A16_NVFP4"},
        lambda path: [
            declared(group_size=32)(path),
            edit_json(path, "config.json", lambda c: c["quantization_config"].pop("config_groups")),
            edit_tensors(path, _halve_groups),
        ],
    ),
    "other float parameters": (
        {},
        lambda path: [
            added("model.layers.0.mixer.conv1d.weight", tensor=checkpoints.bf16((8, 1, 4)))(path),
            added("model.layers.0.mixer.A_log", tensor=checkpoints.f32((8,)))(path),
            added("model.layers.0.mlp.gate.e_score_correction_bias", tensor=F32_1)(path),
            added(
                "model.layers.0.mlp.gate.weight",
                "model.layers.0.mlp.router.weight",
                "model.layers.0.mlp.shared_expert_gate.weight",
                "visual.blocks.0.attn.qkv.weight",
                "model.layers.0.self_attn.q_norm.weight",
                tensor=checkpoints.bf16((8, 64)),
            )(path),
        ],
    ),
    "consolidated file beside the shards": (
        {"shards": 3},
        lambda path: checkpoints.write_safetensors(
            path / "consolidated.safetensors", {"tok_embeddings.weight": checkpoints.bf16((8, 8))}
        ),
    ),
    "consolidated file beside the single file": (
        {},
        lambda path: checkpoints.write_safetensors(
            path / "consolidated.safetensors", {"output.weight": checkpoints.bf16((8, 8))}
        ),
    ),
    "declaration in text_config": ({"algo": "NVFP4"}, nested_declaration),
    "another method's layers beside ModelOpt's": (
        {"algo": "MIXED_PRECISION", "experts": 2},
        native_fp8_beside,
    ),
    "smoothing factors on some modules": (
        {"algo": "NVFP4"},
        lambda path: [
            added(f"{K[:-6]}o_proj.pre_quant_scale", tensor=checkpoints.bf16((64,), 1.0))(path),
            declared(quant_algo="NVFP4_AWQ")(path),
        ],
    ),
    "weights that make up for small factors": (
        {"algo": "W8A8_SQ_PER_CHANNEL"},
        lambda path: [
            added(f"{K[:-6]}o_proj.weight_scale", tensor=checkpoints.f32((64,), 135.0))(path),
            added(f"{K[:-6]}o_proj.pre_quant_scale", tensor=checkpoints.f32((64,), 1e-4))(path),
        ],
    ),
    "smoothing declared, and no factors": (
        {"algo": "NVFP4"},
        declared(quant_algo="NVFP4_AWQ", pre_quant_scale=True, has_zero_point=False),
    ),
    "vocabulary padded beyond the tokenizer": (
        {},
        lambda path: checkpoints.write_json(
            path / "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}
        ),
    ),
    "base model without a chat template": (
        {},
        lambda path: checkpoints.write_json(path / "tokenizer_config.json", {"eos_token": "b"}),
    ),
    "another checkpoint in a subdirectory": (
        {},
        lambda path: checkpoints.build(path / "NVFP4", "NVFP4"),
    ),
}


def _halve_groups(tensors: dict[str, checkpoints.Tensor]) -> None:
    for name, (_, shape, _) in list(tensors.items()):
        if name.endswith(".weight_scale"):
            tensors[name] = checkpoints.fp8((shape[0], shape[1] // 2))


@pytest.mark.parametrize("trap", TRAPS)
def test_no_rule_falls_into_the_trap(tmp_path: Path, trap: str) -> None:
    built, change = TRAPS[trap]
    path = checkpoints.build(tmp_path, **built)
    change(path)
    result = judge(path)
    assert [finding for finding in result.findings if finding.severity != "note"] == []
    skipped = {skipped.rule for skipped in result.skipped}
    assert not {r.id for r in RULES if r.needs in {"headers", "data"}} & skipped


def test_partial_blocks_are_sound(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8_PB_WO")
    module = "model.layers.0.self_attn.kv_a_proj_with_mqa"
    odd = checkpoints.linear(module, "FP8_PB_WO", (192, 576))
    edit_tensors(tmp_path, lambda tensors: tensors.update(odd))
    assert odd[f"{module}.weight_scale"][1] == (2, 1, 5, 1)
    assert judge(tmp_path).errors == ()


@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in LISTED.iterdir()) if LISTED.is_dir() else ["absent"],
)
def test_public_configurations_are_accepted(name: str, shared_data: Path) -> None:
    evidence = gather(shared_data / "hf_quant_config" / name)
    assert evidence.checkpoint.hf_quant_config, "the public file was read"
    result = lint(evidence, RULES, {})
    assert evidence.form is not None
    assert {finding.rule for finding in result.errors} == {"no-weights", "tokenizer-missing"}


def test_both_halves_of_a_public_pair_are_validated(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "hf_quant_config" / "nvidia--GLM-5.2-NVFP4"
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"]["ignore"] = "lm_head"
    checkpoints.write_json(tmp_path / "config.json", config)
    (tmp_path / "hf_quant_config.json").write_bytes((source / "hf_quant_config.json").read_bytes())
    pointers = [f.pointer for f in judge(tmp_path).findings if f.rule == "quant-config-schema"]
    assert pointers == ["/quantization_config/ignore"]
