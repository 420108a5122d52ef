"""GPTQ and AWQ are decoded as the layouts are defined, here in plain integers, field by field."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import judge
from quantizers import awq, gptq, tensor
from tiny_models import llama, opened

from gate.codes import decode_float
from gate.errors import CheckpointError, GateError, UnknownFormatError
from gate.quantization import QuantizedLayer, require_decodable

UP = "model.layers.0.mlp.up_proj"
OUTPUTS, INPUTS, GROUP = 64, 96, 32


def layer_of(
    path: Path, tensors: Mapping[str, Tensor], declared: Mapping[str, Any]
) -> tuple[Any, QuantizedLayer]:
    """A checkpoint of one quantized layer: its format, and that layer."""
    stored = {f"{UP}.{suffix}": value for suffix, value in tensors.items()}
    checkpoints.write_safetensors(path / "model.safetensors", stored)
    checkpoints.write_json(path / "config.json", {"quantization_config": declared})
    checkpoint, form = opened(path)
    assert form is not None
    (layer,) = form.layers(checkpoint)
    return form, layer


def decoded(path: Path, tensors: Mapping[str, Tensor], declared: Mapping[str, Any]) -> np.ndarray:
    """The layer's values, the same with numpy and with torch."""
    import torch

    form, layer = layer_of(path, tensors, declared)
    assert all(form.algorithms(layer.checkpoint).values())
    ours, theirs = form.dequantize(layer, np), form.dequantize(layer, torch)
    assert (ours.dtype, ours.shape) == (np.float32, layer.shape)
    assert theirs.is_contiguous() and np.array_equal(ours.view("u4"), theirs.numpy().view("u4"))
    return ours


def fields(words: bytes, bits: int, count: int) -> list[int]:
    """Integers of `bits` bits that follow one another in little-endian words."""
    stream = int.from_bytes(words, "little")
    return [stream >> bits * index & 2**bits - 1 for index in range(count)]


def array(value: Tensor) -> np.ndarray:
    names = {"I32": "<i4", "F16": "<f2"}
    return np.frombuffer(value[2], names[value[0]]).reshape(value[1])


def gptq_by_definition(
    stored: Mapping[str, Tensor], bits: int, group_size: int, offset: int
) -> np.ndarray:
    """Element by element, in Python's integers and floats."""
    words, scales = array(stored["qweight"]), array(stored["scales"])
    inputs, outputs = words.shape[0] * 32 // bits, words.shape[1]
    zeros = [fields(row.tobytes(), bits, outputs) for row in array(stored["qzeros"])]
    order = [index // (group_size if group_size > 0 else inputs) for index in range(inputs)]
    if "g_idx" in stored:
        order = array(stored["g_idx"]).tolist()
    codes = [fields(words[:, output].tobytes(), bits, inputs) for output in range(outputs)]
    return np.array(
        [
            [
                (codes[output][index] - (zeros[group][output] + offset))
                * float(scales[group, output])
                for index, group in enumerate(order)
            ]
            for output in range(outputs)
        ],
        np.float32,
    )


def random_gptq(bits: int, group_size: int, *, act_order: bool, seed: int) -> dict[str, Tensor]:
    """Any words, with zeros that both layouts can say, and scales of both signs."""
    random = np.random.default_rng(seed)
    groups = -(-INPUTS // group_size) if group_size > 0 else 1
    order = np.arange(INPUTS) // (group_size if group_size > 0 else INPUTS)
    if act_order:
        random.shuffle(order)
    zeros = random.integers(0, 2**bits - 1, (groups, OUTPUTS))
    spread = (zeros[..., None] >> np.arange(bits) & 1).reshape((groups, -1)).astype(np.uint8)
    words = random.integers(-(2**31), 2**31, (INPUTS * bits // 32, OUTPUTS), np.int64)
    return {
        "qweight": tensor(words.astype(np.int32)),
        "qzeros": tensor(np.packbits(spread, axis=-1, bitorder="little").view("<i4")),
        "scales": tensor(random.normal(0, 0.01, (groups, OUTPUTS)).astype(np.float16)),
        "g_idx": tensor(order.astype(np.int32)),
    }


def gptq_config(bits: int, group_size: int, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": False} | more


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("group_size", "act_order"), [(32, False), (32, True), (-1, False), (64, False), (64, True)]
)
def test_gptq(tmp_path: Path, bits: int, group_size: int, act_order: bool, layout: str) -> None:
    """Every width, groups that fill the row and that do not, in order and out of it."""
    stored = random_gptq(bits, group_size, act_order=act_order, seed=bits)
    config = gptq_config(bits, group_size, desc_act=act_order, checkpoint_format=layout)
    expected = gptq_by_definition(stored, bits, group_size, 1 if layout == "gptq" else 0)
    ours = decoded(tmp_path, stored, config)
    assert np.array_equal(ours.view("u4"), expected.view("u4"))
    if not act_order:
        del stored["g_idx"]
        assert np.array_equal(decoded(tmp_path, stored, config), expected)


def test_gptq_gives_back_what_was_packed(tmp_path: Path) -> None:
    """Half a step away at most, in both layouts and asymmetric too."""
    weight = np.random.default_rng(0).normal(0, 0.02, (OUTPUTS, INPUTS))
    for v2 in (False, True):
        stored = gptq(8, GROUP, sym=False, v2=v2)(weight)
        form = "gptq_v2" if v2 else "gptq"
        ours = decoded(tmp_path, stored, gptq_config(8, GROUP, checkpoint_format=form))
        steps = array(stored["scales"]).astype(np.float64).T.repeat(GROUP, axis=1)
        assert (np.abs(ours - weight) <= 0.6 * steps).all()


@pytest.mark.parametrize(
    ("packing", "offset"),
    [("auto_round:auto_gptq", 1), ("auto_round", 0), ("auto_round:gptqmodel", 0)],
)
def test_auto_rounds_layouts(tmp_path: Path, packing: str, offset: int) -> None:
    """Its own keeps a zero as it is; the one that is called GPTQ's takes one off."""
    stored = random_gptq(4, 32, act_order=False, seed=1)
    del stored["g_idx"]
    config = gptq_config(4, 32, quant_method="auto-round", packing_format=packing, act_bits=16)
    expected = gptq_by_definition(stored, 4, 32, offset)
    assert np.array_equal(decoded(tmp_path, stored, config), expected)


@pytest.mark.parametrize(
    "declared",
    [
        {"quant_method": "auto-round", "packing_format": "auto_round:exllamav2"},
        {"quant_method": "auto-round", "act_bits": 8},
        {"checkpoint_format": "marlin"},
        {"checkpoint_format": "gptq_p"},
        {"rotation": "hadamard"},
        {"pack_dtype": "int16"},
        {"bits": 5},
        {"dynamic": {"(a+)+(b*)*": {"bits": 8}}},
    ],
)
def test_what_is_not_described_is_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    """By name, and never decoded as if it were something else."""
    stored = random_gptq(4, 32, act_order=False, seed=1)
    form, layer = layer_of(tmp_path, stored, gptq_config(4, 32) | declared)
    with pytest.raises(UnknownFormatError):
        require_decodable(layer.checkpoint, form)
    with pytest.raises(UnknownFormatError, match=UP):
        form.dequantize(layer, np)


def test_modules_with_widths_of_their_own(tmp_path: Path) -> None:
    """`dynamic` decides, module by module."""
    stored = random_gptq(8, 32, act_order=False, seed=1)
    config = gptq_config(4, 64, dynamic={r"+:.*\.mlp\..*": {"bits": 8, "group_size": 32}})
    assert np.array_equal(decoded(tmp_path, stored, config), gptq_by_definition(stored, 8, 32, 1))


def test_a_layer_that_is_left_out_and_packed_is_refused(tmp_path: Path) -> None:
    stored = random_gptq(4, 32, act_order=False, seed=1)
    form, layer = layer_of(tmp_path, stored, gptq_config(4, 32, dynamic={f"-:{UP}": {}}))
    with pytest.raises(UnknownFormatError, match=f"{UP} is stored as undeclared"):
        form.dequantize(layer, np)


def test_a_zero_that_runtimes_read_differently_is_refused(tmp_path: Path) -> None:
    """vLLM makes 16 of it, gptqmodel 0 with a carry to its neighbour; v2 can say it."""
    stored = random_gptq(4, 32, act_order=False, seed=1)
    dtype, shape, data = stored["qzeros"]
    stored["qzeros"] = dtype, shape, b"\xf7" + data[1:]
    form, layer = layer_of(tmp_path, stored, gptq_config(4, 32))
    with pytest.raises(CheckpointError, match="qzeros holds a zero point") as caught:
        form.dequantize(layer, np)
    assert "gptq_v2" in caught.value.hint
    decoded(tmp_path, stored, gptq_config(4, 32, checkpoint_format="gptq_v2"))


@pytest.mark.parametrize("group", [-1, 3, 2**31 - 1])
def test_a_group_that_does_not_exist_is_refused(tmp_path: Path, group: int) -> None:
    stored = random_gptq(4, 32, act_order=True, seed=1)
    order = array(stored["g_idx"]).copy()
    order[5] = group
    form, layer = layer_of(
        tmp_path, stored | {"g_idx": tensor(order)}, gptq_config(4, 32, desc_act=True)
    )
    with pytest.raises(CheckpointError, match="g_idx"):
        form.dequantize(layer, np)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_words_without_rows_are_refused(tmp_path: Path, method: str) -> None:
    """Nothing else is expected beside them, since nothing tells how they lie."""
    config = gptq_config(4, 32, quant_method=method)
    form, layer = layer_of(tmp_path, {"qweight": tensor(np.ones(64, np.int32))}, config)
    with pytest.raises(CheckpointError, match="qweight"):
        form.dequantize(layer, np)


def awq_by_definition(stored: Mapping[str, Tensor], group_size: int) -> np.ndarray:
    """Field k of a word is output 8j + (0, 2, 4, 6, 1, 3, 5, 7)[k]."""
    scales = array(stored["scales"])

    def rows(words: np.ndarray) -> list[list[int]]:
        found = []
        for row in words:
            values = [0] * (8 * len(row))
            for j, word in enumerate(row):
                for k, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                    values[8 * j + output] = int(word) >> 4 * k & 15
            found.append(values)
        return found

    codes, zeros = rows(array(stored["qweight"])), rows(array(stored["qzeros"]))
    size = group_size if group_size > 0 else len(codes)
    return np.array(
        [
            [
                (codes[index][output] - zeros[index // size][output])
                * float(scales[index // size, output])
                for index in range(len(codes))
            ]
            for output in range(scales.shape[1])
        ],
        np.float32,
    )


@pytest.mark.parametrize("group_size", [32, 96, -1])
@pytest.mark.parametrize(
    "declared",
    [
        {"quant_method": "awq", "version": "gemm"},
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"},
    ],
)
def test_awq(tmp_path: Path, group_size: int, declared: dict[str, Any]) -> None:
    """Any words, AutoRound's too."""
    random = np.random.default_rng(0)
    groups = INPUTS // group_size if group_size > 0 else 1
    stored = {
        "qweight": tensor(random.integers(-(2**31), 2**31, (INPUTS, 8)).astype(np.int32)),
        "qzeros": tensor(random.integers(-(2**31), 2**31, (groups, 8)).astype(np.int32)),
        "scales": tensor(random.normal(0, 0.01, (groups, OUTPUTS)).astype(np.float16)),
    }
    config = {"bits": 4, "group_size": group_size, "zero_point": True} | declared
    ours = decoded(tmp_path, stored, config)
    assert np.array_equal(ours.view("u4"), awq_by_definition(stored, group_size).view("u4"))


def test_awq_gives_back_what_was_packed(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 0.02, (OUTPUTS, INPUTS))
    stored = awq(GROUP)(weight)
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
    steps = array(stored["scales"]).astype(np.float64).T.repeat(GROUP, axis=1)
    assert (np.abs(decoded(tmp_path, stored, config) - weight) <= 0.7 * steps).all()


@pytest.mark.parametrize("declared", [{"version": "gemv"}, {"version": "marlin"}, {"bits": 8}])
def test_other_awq_layouts_are_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP} | declared
    weight = np.random.default_rng(0).normal(0, 0.02, (OUTPUTS, INPUTS))
    form, layer = layer_of(tmp_path, awq(GROUP)(weight), config)
    with pytest.raises(UnknownFormatError, match=UP):
        form.dequantize(layer, np)


LIBRARY = os.environ.get("QUANT_GATE_TEST_GPTQMODEL")


needs_library = pytest.mark.skipif(
    LIBRARY is None,
    reason="QUANT_GATE_TEST_GPTQMODEL names no Python that has gptqmodel: pip install --no-deps "
    "gptqmodel into an environment of its own, since it asks for another torch",
)


def run_library(*words: Any) -> None:
    """Run the script of this folder in the library's environment."""
    script = Path(__file__).parent / "gptqmodel_own.py"
    run = [str(LIBRARY), str(script), *map(str, words)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize(("bits", "most"), [(3, 0.3), (4, 0.15), (8, 0.01)])
def test_gptqmodels_own_exports(tmp_path: Path, bits: int, most: float, export: Any) -> None:
    """No rule finds anything, and every layer is near what it was quantized from."""
    plain, quantized = tmp_path / "plain", tmp_path / "quantized"
    llama(64, 128).save_pretrained(plain)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(export("bf16") / name, plain)
    run_library(plain, quantized, bits)
    # The tokenizer is another model's.
    assert {finding.rule for finding in judge(quantized).errors} <= {"vocabulary-mismatch"}
    (original, _), (checkpoint, form) = opened(plain), opened(quantized)
    assert form is not None
    layers = [layer for layer in form.layers(checkpoint) if layer.packed]
    assert len(layers) == 14
    for layer in layers:
        info = original.tensors[f"{layer.name}.weight"]
        weight = decode_float(original.read(info), info.dtype, np)
        assert np.linalg.norm(form.dequantize(layer, np) - weight) < most * np.linalg.norm(weight)


@needs_library
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_equals_gptqmodels_dequantization(tmp_path: Path, dtype: str) -> None:
    """Every width, layout and order, and AWQ: its values are ours rounded to the scales' dtype."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors, declared = {}, {}
    for layer, (stored, config) in enumerate(_layers()):
        parts = {suffix: torch.from_numpy(array(value).copy()) for suffix, value in stored.items()}
        parts["scales"] = parts["scales"].to(getattr(torch, dtype))
        tensors |= {f"{layer}.{suffix}": value for suffix, value in parts.items()}
        declared[str(layer)] = config | {"stored": sorted(stored)}
    save_file(tensors, tmp_path / "all", {"declared": json.dumps(declared)})
    run_library(tmp_path / "all")
    own = load_file(tmp_path / "all.own")
    for layer, config in declared.items():
        parts = {suffix: tensors[f"{layer}.{suffix}"] for suffix in config["stored"]}
        stored = {suffix: as_stored(value) for suffix, value in parts.items()}
        ours = torch.from_numpy(decoded(tmp_path, stored, config)).to(getattr(torch, dtype))
        theirs = own[f"{layer}.own"]
        assert torch.equal(ours.view(torch.int16), theirs.view(torch.int16)), config


def as_stored(value: Any) -> Tensor:
    """A torch tensor as safetensors holds it."""
    import torch

    if value.dtype == torch.bfloat16:
        return "BF16", tuple(value.shape), value.view(torch.uint8).numpy().tobytes()
    return tensor(value.numpy())


def _layers() -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """What is stored, and the whole declaration."""
    for layout, bits, size, act_order in itertools.product(
        ("gptq", "gptq_v2"), (2, 3, 4, 8), (32, 64, -1), (False, True)
    ):
        stored = random_gptq(bits, size, act_order=act_order, seed=bits)
        more = {"desc_act": act_order, "checkpoint_format": layout}
        yield stored, gptq_config(bits, size, **more)
    for size in (32, -1):
        weight = np.random.default_rng(size % 7).normal(0, 0.02, (OUTPUTS, INPUTS))
        yield awq(size)(weight), {"quant_method": "awq", "bits": 4, "group_size": size}


DTYPES = {"I32": 4, "F16": 2, "BF16": 2, "F32": 4, "U8": 1}
ANY_TENSOR = st.tuples(
    st.sampled_from(["I32", "I32", "F16", *DTYPES]),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 32, 64]), max_size=3),
    st.integers(0, 255),
)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["qweight", "qzeros", "scales", "g_idx"]), ANY_TENSOR),
    st.sampled_from(["gptq", "awq"]),
    st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([-1, 1, 3, 32, 2**31 - 1]),
    st.booleans(),
)
def test_whatever_is_stored_is_decoded_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[str, tuple[str, list[int], int]],
    method: str,
    bits: int,
    group_size: int,
    desc_act: bool,
) -> None:
    """A sound layer of which some tensors are anything: values of the right shape, or an error."""
    stored = random_gptq(bits, 32, act_order=desc_act, seed=0) | {
        suffix: (dtype, tuple(shape), bytes([fill]) * (DTYPES[dtype] * int(np.prod(shape))))
        for suffix, (dtype, shape, fill) in found.items()
    }
    config = {
        "quant_method": method,
        "bits": bits,
        "group_size": group_size,
        "desc_act": desc_act,
    }
    form, layer = layer_of(tmp_path_factory.mktemp("any"), stored, config)
    try:
        values = form.dequantize(layer, np)
    except GateError:
        return
    assert (values.dtype, values.shape) == (np.float32, layer.shape)
