"""Decoded weights are compressed-tensors' own decompression of what it compressed, bit for bit."""

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import edit_json, edit_tensors
from compressed_checkpoints import compressed, compressed_linear
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file
from test_compressed_tensors import BLOCK, FP8, INT4, INT8, NVFP4, SCHEMES, K, ordered
from tiny_models import opened

from gate.errors import CheckpointError, UnknownFormatError
from gate.formats.compressed_tensors import CompressedTensors
from gate.quantization import QuantizedLayer, Role, require_decodable

MORE: dict[str, dict[str, Any]] = {
    "float-quantized blocks that are cut off": {"weights": BLOCK | {"block_structure": [48, 40]}},
    "float-quantized one block": {"weights": BLOCK | {"block_structure": [256, 256]}},
    "int-quantized groups, asym": {
        "weights": INT8 | {"strategy": "group", "group_size": 16, "symmetric": False},
        "input_activations": {"num_bits": 8, "strategy": "token", "dynamic": True},
    },
    "pack-quantized one scale, asym": {
        "weights": INT4 | {"strategy": "tensor", "group_size": None, "symmetric": False}
    },
    "pack-quantized W1": {"weights": INT4 | {"num_bits": 1}},
}


def librarys_own(layer: QuantizedLayer, stored: dict[str, Any], scheme: str, name: str) -> Any:
    """One layer decompressed by the library, in the dtype in which it does so."""
    start = f"{layer.name}."
    own = {key.removeprefix(start): value for key, value in stored.items() if start in key}
    compressor = BaseCompressor.get_value_from_registry(name)
    return compressor.decompress(own, QuantizationScheme.model_validate_json(scheme))["weight"]


def assert_decodes(path: Path, scheme: dict[str, Any]) -> None:
    """Every layer, with numpy and with torch."""
    checkpoint, form = opened(path)
    require_decodable(checkpoint, form)
    assert form is not None
    stored = load_file(path / "model.safetensors")
    name = checkpoint.quantization_config["format"]
    layers = [layer for layer in form.layers(checkpoint) if layer.packed]
    assert len(layers) == 7
    for layer in layers:
        theirs = librarys_own(layer, stored, json.dumps(scheme | {"targets": []}), name)
        for xp in (np, torch):
            ours = torch.as_tensor(form.dequantize(layer, xp))
            assert (ours.dtype, ours.shape) == (torch.float32, theirs.shape), layer.name
            # The library computes in the dtype of its scales: there, both are the same number.
            assert torch.equal(ours.to(theirs.dtype), theirs), layer.name


@pytest.mark.parametrize("name", SCHEMES | MORE)
def test_equals_the_librarys_decompression(name: str, tmp_path: Path) -> None:
    scheme = (SCHEMES | MORE)[name]
    assert_decodes(compressed(tmp_path / "m", scheme, layers=1), scheme)


def test_each_layer_is_decoded_by_its_own_group(tmp_path: Path) -> None:
    others = {"down_proj": {"weights": NVFP4}, "o_proj": {"weights": FP8}}
    path = compressed(tmp_path / "m", {"weights": INT4}, others=others, layers=1)
    checkpoint, form = opened(path)
    require_decodable(checkpoint, form)
    stored = load_file(path / "model.safetensors")
    for layer in form.layers(checkpoint):
        leaf = layer.name.rpartition(".")[2]
        scheme = json.dumps(others.get(leaf, {"weights": INT4}) | {"targets": []})
        theirs = librarys_own(layer, stored, scheme, layer.algo.partition(" ")[0])
        ours = torch.as_tensor(form.dequantize(layer, np))
        assert torch.equal(ours.to(theirs.dtype), theirs), layer.algo


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_words_that_are_filled_in_part(bits: int, symmetric: bool, tmp_path: Path) -> None:
    scheme = {"weights": INT8 | {"num_bits": bits, "symmetric": symmetric}}
    path = compressed(tmp_path / "m", scheme, layers=1)
    narrow = compressed_linear(checkpoints.bf16((33, 41)), json.dumps(scheme | {"targets": []}))
    edit_tensors(path, lambda t: t.update({f"{K}.{name}": value for name, value in narrow.items()}))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    theirs = librarys_own(
        layer,
        load_file(path / "model.safetensors"),
        json.dumps(scheme | {"targets": []}),
        "pack-quantized",
    )
    ours = torch.as_tensor(form.dequantize(layer, np))
    assert ours.shape == (33, 41)
    assert torch.equal(ours.to(theirs.dtype), theirs)


def test_inputs_in_the_order_of_their_activations(tmp_path: Path) -> None:
    """Older versions wrote it: an input's scale is that of the group which g_idx names."""
    path = compressed(tmp_path / "m", {"weights": INT4}, layers=1)
    ordered()(path)
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    stored = load_file(path / "model.safetensors")
    codes = unpack_from_int32(stored[f"{K}.weight_packed"], 4, layer.shape).float()
    scale, order = stored[f"{K}.weight_scale"].float(), stored[f"{K}.weight_g_idx"].long()
    assert order.tolist() == [1] * 32 + [0] * 32
    ours = torch.as_tensor(form.dequantize(layer, np))
    assert torch.equal(ours, codes * scale[:, order])


def test_a_scale_without_a_dimension(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", SCHEMES["float-quantized W8A8 tensor"], layers=1)
    edit_tensors(path, changed("weight_scale", checkpoints.f32(())))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    codes = load_file(path / "model.safetensors")[f"{K}.weight"].float()
    assert np.array_equal(form.dequantize(layer, np), codes.numpy() * np.float32(0.0028))


W4 = {"weights": INT4}


def declared(path: Path, **fields: object) -> None:
    edit_json(path, "config.json", lambda c: c["quantization_config"].update(fields))


def test_what_is_not_decoded_is_named(tmp_path: Path) -> None:
    for fields, named in (
        ({"format": "marlin-24"}, "marlin-24 W4A16 g32"),
        ({"transform_config": {"config_groups": {"R4": {}}}}, "with transforms"),
        ({"config_groups": {"group_0": W4 | {"targets": ["re:(a+)+$"]}}}, "pack-quantized W4A16"),
        ({"config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 0}}}}, "unknown"),
    ):
        path = compressed(tmp_path / named, W4, layers=1)
        if named.startswith("marlin"):
            group = {"group_0": W4 | {"targets": ["Linear"]}}
            fields |= {"config_groups": group}
        declared(path, **fields)
        checkpoint, form = opened(path)
        with pytest.raises(UnknownFormatError, match=named):
            require_decodable(checkpoint, form)


def test_what_is_marked_and_ignored_is_not_decoded(tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", W4, layers=1)
    declared(path, ignore=[K])
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    with pytest.raises(UnknownFormatError, match=K):
        form.dequantize(layer, np)


def changed(suffix: str, tensor: checkpoints.Tensor | None) -> Any:
    def change(stored: dict[str, checkpoints.Tensor]) -> None:
        if tensor is None:
            del stored[f"{K}.{suffix}"]
        else:
            stored[f"{K}.{suffix}"] = tensor

    return change


def i64(*values: int) -> checkpoints.Tensor:
    return "I64", (len(values),), np.array(values, "<i8").tobytes()


@pytest.mark.parametrize(
    ("suffix", "tensor"),
    [
        ("weight_scale", None),
        ("weight_scale", checkpoints.bf16((32, 3))),
        ("weight_shape", i64(32, 2**40)),
        ("weight_shape", i64(32, -64)),
        ("weight_shape", i64(31, 64)),
        ("weight_shape", i64(64, 0)),
        ("weight_shape", i64(32, 57)),
        ("weight_zero_point", ("I32", (4, 2), bytes(32))),
        ("weight_g_idx", ("I32", (64,), bytes(256))),
        ("weight_packed", ("I32", (32, 0), b"")),
    ],
)
def test_contradictions_are_refused(suffix: str, tensor: Any, tmp_path: Path) -> None:
    path = compressed(tmp_path / "m", W4, layers=1)
    edit_tensors(path, changed(suffix, tensor))
    checkpoint, form = opened(path)
    (layer,) = (layer for layer in form.layers(checkpoint) if layer.name == K)
    with pytest.raises(CheckpointError, match=K):
        form.dequantize(layer, np)


def test_inputs_are_described_as_runtimes_round_them(tmp_path: Path) -> None:
    form = CompressedTensors()
    for name, expected in (
        ("int-quantized W8A8 channel", ("int", 8, "token", None, True)),
        ("int-quantized W8A8 tensor asym", ("int", 8, "tensor", None, False)),
        ("float-quantized W8A8 tensor", ("float", 8, "tensor", None, False)),
        ("float-quantized W8A8 channel", ("float", 8, "token", None, True)),
        ("float-quantized W8A8 32x32", ("float", 8, "group", 128, True)),
        ("nvfp4-pack-quantized W4A4 g16", ("float", 4, "tensor_group", 16, True)),
        ("mxfp8-quantized W8A8 g32", ("float", 8, "group", 32, True)),
    ):
        checkpoint, _ = opened(compressed(tmp_path / name, SCHEMES[name], layers=1))
        (scheme,) = {layer.input_scheme for layer in form.layers(checkpoint)}
        found = (scheme.type, scheme.num_bits, scheme.strategy, scheme.group_size, scheme.dynamic)
        assert found == expected
        stored = {role for layer in form.layers(checkpoint) for role in layer.tensors}
        assert (Role.INPUT_GLOBAL_DIVISOR in stored) is ("nvfp4" in name)
