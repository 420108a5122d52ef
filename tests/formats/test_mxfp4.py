"""MXFP4 as gpt-oss stores it: a sound one is silent, and what is broken in it is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import HIDDEN, INTERMEDIATE, Tensor, edit_json, edit_tensors
from judging import errors, flagged, gather, judge
from safetensors.torch import load_file
from tiny_models import opened
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from gate.errors import CheckpointError
from gate.quantization import require_decodable

COUNT = 4
E = "model.layers.0.mlp.experts"
KEPT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


def gpt_oss(path: Path) -> Path:
    """A tiny gpt-oss of random values."""
    checkpoints.build(path, None, experts=COUNT)

    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if ".mlp." in name]:
            if name.endswith(".gate.weight"):
                tensors[name.replace(".gate.", ".router.")] = tensors[name]
            del tensors[name]
        for layer in (0, 1):
            for leaf, rows, columns in (
                ("gate_up_proj", 2 * INTERMEDIATE, HIDDEN),
                ("down_proj", HIDDEN, INTERMEDIATE),
            ):
                weight = f"model.layers.{layer}.mlp.experts.{leaf}"
                size = COUNT * rows * columns // 32
                shape = (COUNT, rows, columns // 32)
                tensors[f"{weight}_blocks"] = ("U8", (*shape, 16), bytes(range(256)) * (size // 16))
                tensors[f"{weight}_scales"] = ("U8", shape, b"\x78" * size)
                tensors[f"{weight}_bias"] = checkpoints.bf16((COUNT, rows))

    edit_tensors(path, change)
    fields: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "intermediate_size": INTERMEDIATE,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": KEPT},
    }
    edit_json(path, "config.json", lambda c: [c.pop("moe_intermediate_size"), c.update(fields)])
    return path


def test_a_sound_one_is_silent(tmp_path: Path) -> None:
    path = gpt_oss(tmp_path / "m")
    result = judge(path)
    assert result.findings == ()
    assert (result.format, result.algorithms) == ("mxfp4", ("MXFP4",))
    shapes = {layer.name: layer.shape for layer in gather(path).layers}
    assert shapes[f"{E}.gate_up_proj"] == (COUNT, 2 * INTERMEDIATE, HIDDEN)
    assert shapes[f"{E}.down_proj"] == (COUNT, HIDDEN, INTERMEDIATE)
    assert len(shapes) == 4


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    return lambda path: edit_tensors(path, change)


def put(suffix: str, tensor: Tensor) -> Callable[[Path], None]:
    return tensors(lambda t: t.update({f"{E}.{suffix}": tensor}))


def unquantized(path: Path) -> None:
    def change(stored: dict[str, Tensor]) -> None:
        del stored[f"{E}.down_proj_blocks"], stored[f"{E}.down_proj_scales"]
        stored[f"{E}.down_proj"] = checkpoints.bf16((COUNT, INTERMEDIATE, HIDDEN))

    edit_tensors(path, change)


def fewer_experts(path: Path) -> None:
    shape = (COUNT - 1, HIDDEN, INTERMEDIATE // 32)
    size = (COUNT - 1) * HIDDEN * INTERMEDIATE // 32
    put("down_proj_blocks", ("U8", (*shape, 16), bytes(range(1, 17)) * size))(path)
    put("down_proj_scales", ("U8", shape, b"\x78" * size))(path)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no scales": (tensors(lambda t: t.pop(f"{E}.down_proj_scales")), "missing-scale"),
    "no blocks": (tensors(lambda t: t.pop(f"{E}.down_proj_blocks")), "orphan-scale"),
    "scales of another shape": (
        put("down_proj_scales", ("U8", (COUNT, HIDDEN, 2), bytes(COUNT * HIDDEN * 2))),
        "scale-shape",
    ),
    "blocks of another shape": (
        put("down_proj_blocks", ("U8", (COUNT, 8, 4, 16), bytes(COUNT * 512))),
        "scale-shape",
    ),
    "fewer experts than config.json says": (fewer_experts, "scale-shape"),
    "blocks of another dtype": (
        put("down_proj_blocks", ("I8", (COUNT, HIDDEN, 4, 16), bytes(COUNT * HIDDEN * 64))),
        "weight-dtype",
    ),
    "a scale that is NaN": (
        put("down_proj_scales", ("U8", (COUNT, HIDDEN, 4), b"\xff" * (COUNT * HIDDEN * 4))),
        "scale-not-finite",
    ),
    "unquantized": (unquantized, "unquantized-not-excluded"),
    "excluded": (
        lambda path: edit_json(
            path,
            "config.json",
            lambda c: c["quantization_config"].update(modules_to_not_convert=["mlp.experts"]),
        ),
        "excluded-but-quantized",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, tmp_path: Path) -> None:
    path = gpt_oss(tmp_path / "m")
    change, rule = BROKEN[name]
    change(path)
    assert rule in flagged(path)


def test_a_missing_tensor_is_named_as_it_would_be_stored(tmp_path: Path) -> None:
    path = gpt_oss(tmp_path / "m")
    edit_tensors(path, lambda t: t.pop(f"{E}.down_proj_scales"))
    edit_tensors(path, lambda t: t.pop(f"{E}.gate_up_proj_blocks"))
    named = {f.tensor for f in judge(path).findings}
    assert {f"{E}.down_proj_scales", f"{E}.gate_up_proj_blocks"} <= named


@pytest.mark.parametrize("figures", [{"hidden_size": 60}, {"hidden_size": "x"}, {}])
def test_figures_may_be_absurd(figures: dict[str, object], tmp_path: Path) -> None:
    path = gpt_oss(tmp_path / "m")
    edit_json(path, "config.json", lambda c: c.update(figures, num_local_experts=None))
    assert errors(path) <= {"dims-vs-config", "group-does-not-divide"}


def test_equals_transformers_decoding(tmp_path: Path) -> None:
    """Bit for bit; the library turns it around, as the model's parameter is."""
    path = gpt_oss(tmp_path / "m")
    random = np.random.default_rng(0)

    def change(stored: dict[str, Tensor]) -> None:
        for name in [name for name in stored if name.endswith("_scales")]:
            dtype, shape, _ = stored[name]
            stored[name] = (dtype, shape, random.integers(1, 255, shape, np.uint8).tobytes())

    edit_tensors(path, change)
    checkpoint, form = opened(path)
    require_decodable(checkpoint, form)
    stored = load_file(path / "model.safetensors")
    for layer in form.layers(checkpoint):
        blocks, scales = (stored[f"{layer.name}_{part}"] for part in ("blocks", "scales"))
        theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert layer.transposed
        for xp in (np, torch):
            ours = torch.as_tensor(form.dequantize(layer, xp))
            assert (ours.dtype, ours.shape) == (torch.float32, layer.shape)
            assert torch.equal(ours.mT, theirs), layer.name


def test_what_contradicts_itself_is_not_decoded(tmp_path: Path) -> None:
    for name in ("no scales", "scales of another shape", "blocks of another dtype"):
        path = gpt_oss(tmp_path / name)
        BROKEN[name][0](path)
        checkpoint, form = opened(path)
        (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == f"{E}.down_proj")
        with pytest.raises(CheckpointError, match="down_proj"):
            form.dequantize(layer, np)
