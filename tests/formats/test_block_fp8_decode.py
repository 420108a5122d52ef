"""FP8 in the model's own precision is decoded as transformers decodes it, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from compressed_checkpoints import raw, values
from safetensors.torch import load_file
from test_block_fp8 import BLOCK, DEEPSEEK, LAYOUTS, K, deepseek, fp4_experts, stored
from tiny_models import opened
from transformers import FineGrainedFP8Config
from transformers.integrations import finegrained_fp8
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

from gate.codes import decode_float
from gate.errors import CheckpointError, UnknownFormatError
from gate.quantization import QuantizedLayer, Role, require_decodable


def by_grid(layer: QuantizedLayer, weight: Any, scale: Any) -> Any:
    """transformers' decoding while it loads, which tells the block's size from the scales."""
    return Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)


def by_definition(layer: QuantizedLayer, weight: Any, scale: Any) -> Any:
    """One scale for each row, as the kernels of fbgemm apply it; the library needs a GPU."""
    return weight.float() * scale.reshape(-1, 1)


def assert_decodes(path: Path, decoded: Callable[[QuantizedLayer, Any, Any], Any]) -> None:
    """Every layer, with numpy and with torch."""
    checkpoint, form = opened(path)
    require_decodable(checkpoint, form)
    tensors = load_file(path / "model.safetensors")
    layers = [layer for layer in form.layers(checkpoint) if layer.packed]
    assert layers
    for layer in layers:
        weight, scale = (
            tensors[layer.tensors[role].name] for role in (Role.WEIGHT, Role.WEIGHT_SCALE)
        )
        theirs = decoded(layer, weight, scale)
        for xp in (np, torch):
            ours = torch.as_tensor(form.dequantize(layer, xp))
            assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape), layer.name
            assert torch.equal(ours, theirs), layer.name


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_transformers_decoding(name: str, tmp_path: Path) -> None:
    config, parts, _ = LAYOUTS[name]
    path = stored(tmp_path / "m", config, parts, layers=1)
    assert_decodes(path, by_definition if name == "fbgemm" else by_grid)


@pytest.mark.parametrize("fmt", ["float", "ue8m0"])
def test_what_transformers_quantized(fmt: str, tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path / "m", None, layers=1)
    config = FineGrainedFP8Config(weight_block_size=(32, 16), scale_fmt=fmt)
    quantize = Fp8Quantize(SimpleNamespace(quantization_config=config))

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            made = quantize._quantize_one(name, values(tensors.pop(name)))
            for key, value in made.items():
                exponents = value.dtype == torch.float8_e8m0fnu
                tensor = raw(value.view(torch.uint8) if exponents else value)
                tensors[key] = ("F8_E8M0", *tensor[1:]) if exponents else tensor

    edit_tensors(path, change)
    declared = BLOCK | {"weight_block_size": [32, 16], "scale_fmt": fmt}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=declared))
    assert_decodes(path, by_grid)


@pytest.mark.parametrize("block", [[48, 40], [64, 24], [128, 128], [1, 1]])
def test_blocks_that_are_cut_off(block: list[int], tmp_path: Path) -> None:
    """Where a row of blocks is cut off, the scales do not tell the size of the others."""
    decoded = getattr(finegrained_fp8, "_dequantize_fp8_weight", None)
    if decoded is None:
        pytest.skip("this version of transformers takes its blocks for whole ones")

    def scales(shape: tuple[int, int]) -> dict[str, checkpoints.Tensor]:
        grid = tuple(-(-size // by) for size, by in zip(shape, block, strict=True))
        random = np.random.default_rng(0).uniform(1e-3, 1e-2, grid).astype("<f4")
        return {"weight_scale_inv": ("F32", grid, random.tobytes())}

    declared = DEEPSEEK | {"weight_block_size": block}
    path = stored(tmp_path / "m", declared, scales, layers=1)
    assert_decodes(path, lambda layer, w, s: decoded(w, s, block, torch.float32))


def test_fp4_experts(tmp_path: Path) -> None:
    assert_decodes(fp4_experts(tmp_path / "m"), by_grid)


@pytest.mark.parametrize(("rows", "scales"), [(64, 2), (24, 2), (24, 1)])
def test_all_experts_in_one_tensor(rows: int, scales: int, tmp_path: Path) -> None:
    """Gate and up have blocks of their own, even where both together fill less than one."""
    path = deepseek(tmp_path / "m", layers=1)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    per = np.random.default_rng(0).uniform(1e-3, 1e-2, (4, scales, 2)).astype("<f4")
    made = {
        name: checkpoints.fp8((4, rows, 64)),
        f"{name}_scale_inv": ("F32", per.shape, per.tobytes()),
    }
    edit_tensors(path, lambda t: t.update(made))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == name)
    ours = form.dequantize(layer, np)
    codes = decode_float(layer.read(Role.WEIGHT), "F8_E4M3", np)
    block = rows // scales
    for row in range(rows):
        for column in (0, 31, 32, 63):
            expected = codes[:, row, column] * per[:, row // block, column // 32]
            assert np.array_equal(ours[:, row, column], expected)


def test_an_unknown_block_size_has_no_decoder(tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m", layers=1)
    edit_json(
        path, "config.json", lambda c: c["quantization_config"].update(weight_block_size=[0, 1])
    )
    checkpoint, form = opened(path)
    with pytest.raises(UnknownFormatError, match="unknown block size"):
        require_decodable(checkpoint, form)


def test_scales_of_another_grid_are_refused(tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m", layers=1)
    edit_tensors(path, lambda t: t.update({f"{K}.weight_scale_inv": checkpoints.f32((2, 1))}))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    with pytest.raises(CheckpointError, match=K):
        form.dequantize(layer, np)


def test_inputs_are_described_as_runtimes_round_them(tmp_path: Path) -> None:
    for name, expected in (
        ("DeepSeek-V3", ("group", 32, True)),
        ("MXFP8", ("group", 32, True)),
        ("one scale", ("token", None, True)),
        ("static", ("tensor", None, False)),
        ("fbgemm", ("token", None, True)),
    ):
        config, parts, _ = LAYOUTS[name]
        checkpoint, form = opened(stored(tmp_path / name, config, parts, layers=1))
        (scheme,) = {layer.input_scheme for layer in form.layers(checkpoint)}
        assert (scheme.strategy, scheme.group_size, scheme.dynamic) == expected


def test_an_embedding_has_no_input_to_round(tmp_path: Path) -> None:
    path = deepseek(tmp_path / "m", layers=1)
    made = {
        "model.embed_tokens.weight": checkpoints.fp8((96, 64)),
        "model.embed_tokens.weight_scale": checkpoints.f32((1,)),
    }
    edit_tensors(path, lambda t: t.update(made))
    fields = {"modules_to_convert": ["embed_tokens"]}
    edit_json(path, "config.json", lambda c: c["quantization_config"].update(fields))
    checkpoint, form = opened(path)
    (layer,) = (found for found in form.layers(checkpoint) if "embed" in found.name)
    assert layer.input_scheme is None
    codes = decode_float(layer.read(Role.WEIGHT), "F8_E4M3", np)
    assert np.array_equal(form.dequantize(layer, np), codes * np.float32(0.0028))
