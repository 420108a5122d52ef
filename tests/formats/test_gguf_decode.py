"""Decoded GGUF weights are the package gguf's own dequantization, bit for bit, of every type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
from gguf_files import HIDDEN, INTERMEDIATE
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import gather

from gate import ggml
from gate.errors import CheckpointError, GateError, UnknownFormatError
from gate.quantization import QuantizedLayer, require_decodable

NAME = "blk.0.ffn_down"
Tensors = dict[str, tuple[str, tuple[int, ...]]]


def layer_of(path: Path, **built: Any) -> tuple[Any, QuantizedLayer]:
    evidence = gather(gguf_files.build(path, layers=1, **built))
    return evidence.form, next(layer for layer in evidence.layers if layer.name == NAME)


def theirs(path: Path, name: str = f"{NAME}.weight") -> np.ndarray:
    """The tensor as the package's own reader and dequantization give it."""
    tensor = next(t for t in gguf.GGUFReader(path / "model.gguf").tensors if t.name == name)
    values: np.ndarray = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return values


DECODED = [kind.name for kind in gguf_files.STORED if ggml.is_decodable(kind.name)]


def test_every_type_that_the_package_knows_is_decoded() -> None:
    quantized = {kind.name for kind in gguf_files.STORED if ggml.is_quantized(kind.name)}
    assert quantized - set(DECODED) == {"Q8_K", "Q1_0"}


@pytest.mark.parametrize("kind", [k for k in DECODED if ggml.is_quantized(k)])
def test_equals_the_package_s_dequantization(tmp_path: Path, kind: str) -> None:
    import torch

    form, layer = layer_of(tmp_path, kind=kind)
    expected = theirs(tmp_path)
    require_decodable(layer.checkpoint, form)
    assert form.algorithms(layer.checkpoint) == {kind: True}
    for xp in (np, torch):
        ours = np.asarray(form.dequantize(layer, xp))
        assert (ours.dtype, ours.shape) == (np.float32, (HIDDEN, INTERMEDIATE))
        assert np.array_equal(ours.view(np.uint32), expected.view(np.uint32))


def test_experts_keep_their_dimension(tmp_path: Path) -> None:
    def stacked(tensors: Tensors) -> None:
        tensors[f"{NAME}.weight"] = "Q5_1", (3, HIDDEN, INTERMEDIATE)

    form, layer = layer_of(tmp_path, kind="Q5_1", change=stacked)
    ours = form.dequantize(layer, np)
    assert ours.shape == layer.shape == (3, HIDDEN, INTERMEDIATE)
    assert np.array_equal(ours, theirs(tmp_path).reshape(ours.shape))


@pytest.mark.parametrize(("experts", "count"), [((), 1), ((3,), 3), ((3,), 1)])
def test_a_scale_beside_the_weight_multiplies_it(
    tmp_path: Path, experts: tuple[int, ...], count: int
) -> None:
    def scaled(tensors: Tensors) -> None:
        tensors[f"{NAME}.weight"] = "NVFP4", (*experts, HIDDEN, INTERMEDIATE)
        tensors[f"{NAME}.scale"] = "F32", (count,)

    form, layer = layer_of(tmp_path, kind="NVFP4", change=scaled)
    scale = theirs(tmp_path, f"{NAME}.scale")
    expected = theirs(tmp_path).reshape((*experts, HIDDEN, INTERMEDIATE))
    expected = expected * (scale.reshape(-1, 1, 1) if experts else scale)
    assert np.array_equal(form.dequantize(layer, np), expected)


@pytest.mark.parametrize(
    "stored", [("F32", (2,)), ("F16", (1,)), ("F32", (1, 1))], ids=["count", "dtype", "shape"]
)
def test_a_scale_that_fits_no_weight_is_refused(
    tmp_path: Path, stored: tuple[str, tuple[int, ...]]
) -> None:
    change: Callable[[Tensors], object] = lambda t: t.update({f"{NAME}.scale": stored})  # noqa: E731
    form, layer = layer_of(tmp_path, kind="NVFP4", change=change)
    with pytest.raises(CheckpointError, match=rf"{NAME}\.scale"):
        form.dequantize(layer, np)


@pytest.mark.parametrize("kind", ["Q8_K", "Q1_0"])
def test_a_type_without_decoder_is_never_evaluated(tmp_path: Path, kind: str) -> None:
    form, layer = layer_of(tmp_path, kind=kind)
    assert form.algorithms(layer.checkpoint) == {kind: False}
    with pytest.raises(UnknownFormatError, match=kind):
        require_decodable(layer.checkpoint, form)
    with pytest.raises(UnknownFormatError, match=rf"{NAME}.*{kind}"):
        form.dequantize(layer, np)


def test_an_unquantized_file_is_evaluated(tmp_path: Path) -> None:
    evidence = gather(gguf_files.build(tmp_path, "BF16", layers=1))
    assert evidence.layers == ()
    require_decodable(evidence.checkpoint, evidence.form)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([k.name for k in gguf.GGMLQuantizationType] + ["IQ4_K", "Q4_2", "type 9"]),
    dimensions=st.lists(st.sampled_from([1, 2, 31, 32, 256, 2**40]), min_size=1, max_size=4),
    data=st.binary(max_size=2048),
    offset=st.integers(0, 64),
)
def test_any_bytes_are_decoded_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    dimensions: list[int],
    data: bytes,
    offset: int,
) -> None:
    """Whatever a header claims: float32 of the claimed shape, or an error of ours."""
    path = tmp_path_factory.mktemp("hostile")
    number = next(n for n in range(256) if kind in {ggml.type_name(n), "type 9"})
    entry = gguf_files.entry("blk.0.ffn_up.weight", dimensions, number, offset)
    head = gguf_files.padded(gguf_files.header([entry]), 0)
    (path / "model.gguf").write_bytes(head + data)
    evidence = gather(path)
    for layer in evidence.layers:
        try:
            values = evidence.form.dequantize(layer, np)
        except GateError:
            continue
        assert values.dtype == np.float32 and values.shape == layer.shape
