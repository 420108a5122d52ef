"""Declarations and tensors are untrusted: whatever they hold, they are judged."""

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import judge
from tiny_models import opened

from gate.errors import GateError

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([-1, 0, 1, 2, 4, 8, 16, 32, 128]),
    st.floats(),
    st.sampled_from(["int", "float", "GROUP", "block", "tensor_group", "4", "", "re:(", "Linear"]),
    st.text(max_size=5),
)
VALUE = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
FORMATS = st.sampled_from([
    "pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mxfp8-quantized", "dense", "marlin-24", "mixed-precision", "new",
])  # fmt: skip


def some(**fields: Any) -> Any:
    """Fields that may be absent, and may hold anything."""
    return st.fixed_dictionaries({}, optional={name: VALUE | of for name, of in fields.items()})


ARGUMENTS = some(
    num_bits=st.integers(1, 16),
    type=st.sampled_from(["int", "float"]),
    strategy=st.sampled_from(["group", "channel", "tensor", "block", "tensor_group", "token"]),
    group_size=st.integers(-1, 64),
    block_structure=st.lists(st.integers(0, 64), min_size=2, max_size=2),
    symmetric=st.booleans(),
    dynamic=st.sampled_from([True, False, "local"]),
    actorder=st.sampled_from(["group", "weight", True]),
)
TARGETS = st.lists(st.sampled_from(["Linear", "lm_head", "re:.*", "re:(?!a)b", "a.b"]), max_size=3)
GROUP = some(targets=TARGETS, weights=ARGUMENTS, input_activations=ARGUMENTS, format=FORMATS)
DECLARED = {
    "compressed-tensors": some(
        config_groups=st.dictionaries(st.text(max_size=2), VALUE | GROUP, max_size=2),
        format=FORMATS,
        ignore=TARGETS,
        kv_cache_scheme=ARGUMENTS,
        sparsity_config=some(format=st.just("sparse-24-bitmask")),
    ),
    "fp8": some(
        weight_block_size=st.lists(st.integers(-1, 64), max_size=3),
        modules_to_not_convert=TARGETS,
        ignored_layers=TARGETS,
        activation_scheme=st.sampled_from(["static", "dynamic"]),
        expert_dtype=st.just("fp4"),
        scale_fmt=st.just("ue8m0"),
    ),
    "fbgemm_fp8": some(modules_to_not_convert=TARGETS),
    "mxfp4": some(modules_to_not_convert=TARGETS),
    "quanto": some(weights=st.sampled_from(["int8", "int4", "float8"]), activations=VALUE),
}
SUFFIXES = [
    "weight", "weight_packed", "weight_scale", "weight_scale_inv", "weight_shape", "scale",
    "weight_zero_point", "weight_g_idx", "weight_global_scale", "input_global_scale",
    "input_scale", "weight._data", "weight._scale", "weight._shift", "weight.compressed",
    "weight.shape", "gate_up_proj", "gate_up_proj_blocks", "gate_up_proj_scales",
]  # fmt: skip
MODULES = ["a", "lm_head", "model.layers.0.mlp.experts", "model.layers.0.self_attn.q_proj", ""]
DTYPES = {"BF16": 2, "F32": 4, "U8": 1, "I8": 1, "I32": 4, "I64": 8, "F8_E4M3": 1, "F8_E8M0": 1}
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 32]), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, checkpoints.Tensor]:
    found = {}
    for module in draw(st.lists(st.sampled_from(MODULES), max_size=3, unique=True)):
        for suffix in draw(st.lists(st.sampled_from(SUFFIXES), max_size=5, unique=True)):
            dtype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES)
            size = DTYPES[dtype]
            for part in shape:
                size *= part
            if size <= 4096:
                byte = draw(st.sampled_from([b"\x00", b"\x01", b"\x3c", b"\x7f", b"\xff"]))
                found[f"{module}.{suffix}"] = (dtype, shape, byte * size)
    return found


@st.composite
def related(draw: st.DrawFn) -> dict[str, checkpoints.Tensor]:
    """Tensors of one layer whose shapes nearly fit one another, so that decoders get far."""
    found = {}
    size = st.sampled_from([1, 2, 3, 4, 8, 32])
    rows, columns = draw(size), draw(size)
    for suffix in draw(st.lists(st.sampled_from(SUFFIXES), min_size=2, max_size=5, unique=True)):
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = draw(
            st.sampled_from([
                (rows, columns), (rows, 1), (1,), (), (columns,), (rows, -(-columns // 8)),
                (1, 1), (2,), (-(-rows // 8), columns), (2, rows, columns), (2, rows, 1, 16),
            ])
        )  # fmt: skip
        elements = int(np.prod(shape))
        values = draw(st.binary(min_size=elements, max_size=elements))
        zeros = bytes(DTYPES[dtype] - 1)
        found[f"model.layers.0.self_attn.q_proj.{suffix}"] = (
            dtype,
            shape,
            b"".join(bytes([value]) + zeros for value in values),
        )
    return found


def _written(path: Path, method: str, data: st.DataObject, stored: Any) -> Path:
    path.mkdir(exist_ok=True)
    checkpoints.write_safetensors(path / "model.safetensors", data.draw(stored))
    declared = data.draw(DECLARED[method]) | {"quant_method": method}
    checkpoints.write_json(path / "config.json", {"quantization_config": declared})
    return path


@pytest.mark.parametrize("method", DECLARED)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_anything_is_judged(method: str, tmp_path: Path, data: st.DataObject) -> None:
    result = judge(_written(tmp_path / "m", method, data, tensors()))
    assert result.format == method


@pytest.mark.parametrize("method", DECLARED)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_anything_is_decoded_or_refused(method: str, tmp_path: Path, data: st.DataObject) -> None:
    path = _written(tmp_path / "m", method, data, tensors() | related())
    checkpoint, form = opened(path)
    for layer in form.layers(checkpoint):
        if layer.packed:
            try:
                found = form.dequantize(layer, np)
            except GateError:
                continue
            assert found.dtype == np.float32
            assert layer.shape in (None, found.shape)
