"""Which modules a declaration names: experts in one tensor, multimodal prefixes, MTP, KV cache."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import edit_declarations, edit_tensors
from judging import errors, flagged, gather, judge

from gate.architecture import text_name
from gate.formats.modelopt import ModelOpt
from gate.formats.modelopt_config import Modules
from gate.quantization import Declaration, Role

EXPERTS = "model.layers.0.mlp.experts"
UP = f"{EXPERTS}.gate_up_proj"
E, IN, OUT = 4, 64, 256


def declared(
    algo: str = "NVFP4",
    exclude: tuple[str, ...] = (),
    layers: dict[str, dict[str, Any]] | None = None,
) -> Modules:
    return Modules(Declaration("config.json", algo, None, 16, exclude, layers))


def sized(dtype: str, shape: tuple[int, ...], byte: int = 0x38) -> checkpoints.Tensor:
    size = {"F32": 4, "BF16": 2}.get(dtype, 1)
    if dtype == "F32":
        return checkpoints.f32(shape)
    return dtype, shape, bytes([byte]) * (math.prod(shape) * size)


STACKED: dict[str, dict[str, checkpoints.Tensor]] = {
    "FP8": {
        "": sized("F8_E4M3", (E, IN, OUT)),
        "_weight_scale": sized("F32", ()),
        "_input_scale": sized("F32", ()),
    },
    "FP8_PER_CHANNEL_PER_TOKEN": {
        "": sized("F8_E4M3", (E, IN, OUT)),
        "_weight_scale": sized("F32", (E,)),
    },
    "FP8_PB_WO": {
        "": sized("F8_E4M3", (E, IN, OUT)),
        "_weight_scale": sized("F32", (E, 2, 1, 1, 1)),
    },
    "NVFP4": {
        "": sized("U8", (E, IN // 2, OUT)),
        "_weight_scale": sized("F8_E4M3", (E, IN // 16, OUT)),
        "_weight_scale_2": sized("F32", ()),
        "_input_scale": sized("F32", ()),
    },
    "W4A8_NVFP4_FP8": {
        "": sized("U8", (E, IN, OUT // 2)),
        "_weight_scale": sized("F8_E4M3", (E, IN, OUT // 32)),
        "_weight_scale_2": sized("F32", ()),
        "_input_scale": sized("F32", ()),
    },
    "MXFP4": {
        "": sized("U8", (E, IN, OUT // 2)),
        "_weight_scale": sized("U8", (E, IN, OUT // 32), 120),
    },
    "MXFP8": {
        "": sized("F8_E4M3", (E, IN, OUT)),
        "_weight_scale": sized("U8", (E, IN, OUT // 32), 120),
    },
}
"""Seen in exports of gpt-oss and Llama 4 by ModelOpt 0.47 (test_modelopt_exports.py)."""


def stacked(path: Path, algo: str) -> Path:
    """A checkpoint whose first layer has all experts in one tensor, beside its dense MLP."""
    checkpoints.build(path, algo)
    tensors = {f"{UP}{suffix}": tensor for suffix, tensor in STACKED[algo].items()}
    tensors[f"{UP}_bias"] = checkpoints.bf16((E, OUT))
    edit_tensors(path, lambda stored: stored.update(tensors))
    return path


@pytest.mark.parametrize("algo", STACKED)
def test_stacked_experts_are_one_layer(tmp_path: Path, algo: str) -> None:
    evidence = gather(stacked(tmp_path, algo))
    layer = evidence.layer_of[UP]
    assert layer.shape == (E, OUT, IN)
    assert layer.tensors[Role.WEIGHT].name == UP
    assert {layer.stored_name(role) for role in layer.tensors if role is not Role.WEIGHT} == {
        f"{UP}{suffix}" for suffix in STACKED[algo] if suffix
    }
    assert judge(tmp_path).errors == ()


@pytest.mark.parametrize("algo", ["FP8", "NVFP4"])
def test_stacked_experts_are_decoded_as_the_model_counts_them(tmp_path: Path, algo: str) -> None:
    layer = gather(stacked(tmp_path, algo)).layer_of[UP]
    found = ModelOpt().dequantize(layer, np)
    assert len(found.shape) == 3 and found.shape == layer.shape


@pytest.mark.parametrize("algo", STACKED)
def test_every_tensor_of_stacked_experts_is_looked_at(tmp_path: Path, algo: str) -> None:
    stacked(tmp_path, algo)
    sound = (tmp_path / "model.safetensors").read_bytes()
    for suffix in STACKED[algo]:
        if suffix:
            edit_tensors(tmp_path, lambda t, n=f"{UP}{suffix}": t.pop(n))
            assert flagged(tmp_path) >= {"missing-scale"}, suffix
            (tmp_path / "model.safetensors").write_bytes(sound)
            wrong = checkpoints.f32((5, 5))
            edit_tensors(tmp_path, lambda t, n=f"{UP}{suffix}", w=wrong: t.update({n: w}))
        else:
            edit_tensors(tmp_path, lambda t: t.update({UP: sized("I8", (E, IN, OUT))}))
        assert errors(tmp_path), suffix
        (tmp_path / "model.safetensors").write_bytes(sound)


def test_stacked_experts_left_unquantized_are_excluded_or_found(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "NVFP4")
    edit_tensors(tmp_path, lambda t: t.update({UP: sized("BF16", (E, IN, OUT))}))
    assert errors(tmp_path) == {"unquantized-not-excluded"}
    edit_declarations(
        tmp_path,
        lambda body: body.update(
            {key: [*body[key], EXPERTS] for key in ("exclude_modules", "ignore") if key in body}
        ),
    )
    assert errors(tmp_path) == set()


def test_companions_are_no_parameters() -> None:
    form = ModelOpt()
    for name in (
        "a.weight_scale", "a.weight_scale_2", "a.input_scale", "a.pre_quant_scale", "a.k_scale",
        "a.v_bias", f"{UP}_weight_scale_2", f"{UP}_input_scale", "a.svdquant_lora_a",
        "a.weight_quantizer._svdquant_lora_b",
    ):  # fmt: skip
        assert form.is_companion(name), name
    for name in ("a.weight", "a.bias", UP, f"{UP}_bias", "a.k_proj.weight", "weight", ""):
        assert not form.is_companion(name), name


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        ("model.language_model.layers.0.mlp", "model.language_model.layers.0.mlp.up_proj"),
        ("model.language_model.layers.0.mlp", "language_model.model.layers.0.mlp.up_proj"),
        ("language_model.model.layers.0.mlp", "model.language_model.layers.0.mlp.up_proj"),
        ("model.layers.0.mlp", "model.language_model.layers.0.mlp.up_proj"),
        ("model.language_model.layers.0.mlp", "model.layers.0.mlp.up_proj"),
        ("language_model.lm_head", "lm_head"),
        ("lm_head", "language_model.lm_head"),
        ("backbone.layers.0", "backbone.layers.0.mixer.in_proj"),
    ],
)
def test_a_language_model_is_spelled_in_several_ways(listed: str, stored: str) -> None:
    assert declared(exclude=(listed,)).of(stored) == ("", None)
    assert declared(exclude=(f"{listed}*",)).of(stored) == ("", None)
    assert declared().of(stored) == ("NVFP4", 16)
    entry = {listed: {"quant_algo": "FP8"}}
    assert declared("MIXED_PRECISION", layers=entry).of(stored) == ("FP8", None)
    assert declared("MIXED_PRECISION", layers={}).of(stored) == ("", None)


@pytest.mark.parametrize(
    "pattern", ["model.language_model.*", "language_model.*", "language_model*"]
)
def test_excluding_the_language_model_leaves_the_rest(pattern: str) -> None:
    modules = declared(exclude=(pattern,))
    assert modules.of("model.visual.blocks.0.mlp.up") == ("NVFP4", 16)
    stored = "model." * pattern.startswith("model") + "language_model.layers.0.mlp.up_proj"
    assert modules.of(stored) == ("", None)


@pytest.mark.parametrize(
    ("pattern", "module"),
    [
        ("mtp*", "mtp.layers.0.mlp.gate_proj"),
        ("mtp.layers.0*", "mtp.layers.0.self_attn.q_proj"),
        ("model.visual*", "model.visual.blocks.3.attn.qkv"),
        ("vision_tower*", "vision_tower.encoder.blocks.0.wqkv"),
        ("*.mlp.shared_expert.*", "model.language_model.layers.3.mlp.shared_expert.up_proj"),
        ("model.layers.61*", "model.layers.61.eh_proj"),
    ],
)
def test_what_public_lists_leave_out(pattern: str, module: str) -> None:
    assert declared(exclude=(pattern,)).of(module) == ("", None)


def test_the_nearest_entry_counts() -> None:
    modules = declared(
        "MIXED_PRECISION",
        layers={
            "model.layers.0.mlp": {"quant_algo": "FP8"},
            "model.layers.0.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16},
            "model.layers.0.mlp.experts.1": {"quant_algo": ["a"], "group_size": -1},
        },
    )
    assert modules.of(f"{EXPERTS}.0.up_proj") == ("NVFP4", 16)
    assert modules.of(UP) == ("NVFP4", 16)
    assert modules.of("model.layers.0.mlp.shared_expert.up_proj") == ("FP8", None)
    assert modules.of(f"{EXPERTS}.1.up_proj") == ("", None)
    assert modules.of("model.layers.1.mlp.up_proj") == ("", None)


@pytest.mark.parametrize("name", ["", ".", "language_model.", "model.language_model.", "a" * 5000])
def test_odd_names_are_borne(name: str) -> None:
    assert text_name(name) == name
    assert declared(exclude=(name,)).of(name)[0] in {"", "NVFP4"}
    assert declared("MIXED_PRECISION", layers={name: {}}).of(name) == ("", None)
    assert declared("MIXED_PRECISION").of("." * 1000) == ("", None)


def renamed(rename: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[rename(name)] = tensors.pop(name)

    return change


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_a_multimodal_checkpoint_is_sound(tmp_path: Path, prefix: str) -> None:
    """Names as the file has them, and declarations as the text model has them."""
    checkpoints.build(tmp_path, "MIXED_PRECISION", tied=False)
    edit_tensors(tmp_path, renamed(lambda name: name.replace("model.", prefix, 1)))
    edit_tensors(
        tmp_path, lambda t: t.update({"visual.blocks.0.attn.qkv.weight": checkpoints.bf16((8, 8))})
    )
    result = judge(tmp_path)
    assert {f.rule for f in result.errors} <= {"name-prefix"}
    assert len(gather(tmp_path).layers) == 14
    assert all(layer.declared for layer in gather(tmp_path).layers)
