"""How bitsandbytes' layouts are decoded.

Source: https://github.com/bitsandbytes-foundation/bitsandbytes (`functional.py`, `dequantize_4bit`,
`dequantize_blockwise`, `int8_vectorwise_dequant`).
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from gate.codes import FP4_PAIRS, NF4_PAIRS, lookup
from gate.errors import CheckpointError
from gate.formats.decoding import require, require_as_described
from gate.quantization import QuantizedLayer, Role

if TYPE_CHECKING:
    from gate.checkpoint import Checkpoint, TensorInfo

TABLES = {"nf4": NF4_PAIRS, "fp4": FP4_PAIRS}

MOST_STATE_BYTES = 4096
"""Of a state: real ones have about 170."""

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

EQUAL = 1e-6
"""Between a stored table and the type's own: versions derived them in different ways."""

PER_STEP = 7.874015718698502e-3
"""The library's constant for 1 / 127."""


@dataclass(frozen=True)
class State:
    """What a layer's `quant_state` says beside its tensors.

    Attributes:
        shape: (out_features, in_features).
        block_size: Weights that share a scale, along the flattened weight.
        nested_block_size: Scales that share a scale; 0 where they are not quantized.
        nested_dtype: In which decoded scales are computed.
        nested_offset: Added to every decoded scale.
    """

    quant_type: str
    shape: tuple[int, int]
    block_size: int
    nested_block_size: int
    nested_dtype: str
    nested_offset: float


def read_state(checkpoint: "Checkpoint", info: "TensorInfo") -> State | None:
    """The state; None where it cannot be read or is none.

    Raises:
        CheckpointError: The file ends before the tensor does.
    """
    if info.dtype != "U8" or info.nbytes > MOST_STATE_BYTES:
        return None
    try:
        found = json.loads(checkpoint.read(info).tobytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    shape, block_size = found.get("shape"), found.get("blocksize")
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_size, shape)):
        return None
    nested, offset = found.get("nested_blocksize", 0), found.get("nested_offset", 0.0)
    if not _is_size(block_size) or block_size not in BLOCK_SIZES:
        return None
    if not (nested == 0 or _is_size(nested)) or not _is_finite(offset):
        return None
    kind, dtype = str(found.get("quant_type")), str(found.get("nested_dtype", "float32"))
    if kind not in TABLES or dtype not in {"float32", "bfloat16", "float16"}:
        return None
    return State(kind, (shape[0], shape[1]), block_size, int(nested), dtype, float(offset))


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


def _is_finite(value: object) -> TypeGuard[float]:
    # An integer may be too large for a float.
    return type(value) in {int, float} and abs(value) < 1e30  # type: ignore[arg-type]


def int8(layer: QuantizedLayer, xp: Any) -> Any:
    """Each row's largest magnitude stands for 127.

    Raises:
        CheckpointError: Tensors that contradict the declaration, or one another.
    """
    require_as_described(layer)
    require(layer, layer.shape is not None, Role.WEIGHT)
    laid_out = layer.checkpoint.tensors.get(f"{layer.name}.weight_format")
    if laid_out is not None and np.any(layer.checkpoint.read(laid_out)):
        raise CheckpointError(
            f"{laid_out.name} says that the weight is laid out for one kind of GPU, not row by row",
            "Load the model with an old bitsandbytes on that GPU, and save it with a new one.",
        )
    values = xp.asarray(layer.read(Role.WEIGHT).astype("float32"))
    # Not by one product: the library rounds after each of the two.
    values *= xp.asarray(np.array(layer.read(Role.WEIGHT_SCALE))).reshape((-1, 1))
    values *= PER_STEP
    return values


def four_bits(layer: QuantizedLayer, xp: Any) -> Any:
    """Blocks of the flattened weight, each with its largest magnitude; the high nibble is first.

    Raises:
        CheckpointError: Tensors that contradict the declaration, the state, or one another.
    """
    require_as_described(layer)
    state = read_state(layer.checkpoint, layer.tensors[Role.QUANT_STATE])
    require(layer, state is not None, Role.QUANT_STATE)
    assert state is not None
    named = layer.tensors[Role.QUANT_STATE].name.endswith(f"bitsandbytes__{state.quant_type}")
    require(layer, named and layer.algo == state.quant_type.upper(), Role.QUANT_STATE)
    codes = np.ascontiguousarray(layer.read(Role.WEIGHT)).view(np.uint8).reshape(-1)
    count = math.prod(state.shape)
    require(layer, len(codes) == -(-count // 2), Role.WEIGHT)
    table = TABLES[state.quant_type]
    _require_table(layer, [pair[1] for pair in table[:16]])
    scale = _scales(layer, state, -(-count // state.block_size))
    values = lookup(table, codes, xp).reshape(-1)[:count]
    whole = count // state.block_size
    blocks = values[: whole * state.block_size].reshape((whole, state.block_size))
    blocks *= xp.asarray(scale[:whole]).reshape((-1, 1))
    if whole < len(scale):
        values[whole * state.block_size :] *= float(scale[whole])
    return values.reshape(state.shape)


def _require_table(layer: QuantizedLayer, own: list[float]) -> None:
    """Refuse a table that is not the type's: some kernels take it from the file, others do not."""
    apart = np.abs(layer.read(Role.QUANT_MAP) - np.array(own, np.float32))
    require(layer, bool((apart <= EQUAL).all()), Role.QUANT_MAP)


def _scales(layer: QuantizedLayer, state: State, blocks: int) -> np.ndarray:
    """One float32 a block, decoded where they are quantized themselves."""
    if not state.nested_block_size:
        require(layer, Role.WEIGHT_SCALE in layer.tensors, Role.QUANT_STATE)
        scale = layer.read(Role.WEIGHT_SCALE)
        require(layer, scale.shape == (blocks,), Role.WEIGHT_SCALE)
        return np.array(scale)
    require(layer, Role.WEIGHT_SCALE_CODES in layer.tensors, Role.QUANT_STATE)
    codes, outer = layer.read(Role.WEIGHT_SCALE_CODES), layer.read(Role.NESTED_SCALE)
    require(layer, codes.shape == (blocks,), Role.WEIGHT_SCALE_CODES)
    groups = -(-blocks // state.nested_block_size)
    require(layer, outer.shape == (groups,), Role.NESTED_SCALE)
    group = np.arange(blocks) // state.nested_block_size
    scale = _rounded(layer.read(Role.NESTED_QUANT_MAP)[codes] * outer[group], state.nested_dtype)
    offset = _rounded(np.array([state.nested_offset], np.float32), state.nested_dtype)
    return _rounded(scale + offset, state.nested_dtype)


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values to the nearest of a shorter dtype, ties to even; float32 again."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).view(np.float32)
        return np.where(np.isnan(values), values, nearest)
    return values
