"""How integers in 32-bit words are decoded: (code - zero point) * scale, exact in float32.

The libraries compute in the dtype of the scales; what comes from here is their number before it is
rounded to that dtype: the difference of two codes of up to 8 bits times a half is exact.
"""

import operator
from typing import Any

import numpy as np

from gate.codes import decode_float, unpack
from gate.errors import CheckpointError
from gate.formats.decoding import apply, require
from gate.quantization import QuantizedLayer, Role

AWQ_COLUMNS = (0, 4, 1, 5, 2, 6, 3, 7)
"""The field of a word, lowest bits first, in which each of eight outputs lies."""


def gptq(layer: QuantizedLayer, zero_offset: int, xp: Any) -> Any:
    """Words along the inputs, each group of inputs found by `g_idx` or counted.

    Args:
        layer: Whose tensors are as described.
        zero_offset: What was taken off a zero point before it was stored.
        xp: numpy or torch.

    Raises:
        CheckpointError: A group does not exist, or a zero point is one that runtimes read
            differently: vLLM and AutoRound add one to the highest code, gptqmodel to its word, so
            that it becomes 0 and its neighbour one more.
    """
    assert layer.scheme is not None and layer.shape is not None, "the layout is described"
    bits, (outputs, inputs) = layer.scheme.num_bits, layer.shape
    zeros = unpack(layer.read(Role.WEIGHT_ZERO_POINT), bits, outputs)
    if zero_offset and zeros.max() == 2**bits - 1:
        raise CheckpointError(
            f"{layer.tensors[Role.WEIGHT_ZERO_POINT].name} holds a zero point that GPTQ's first "
            f"layout cannot say: runtimes read {2**bits} or 0 where all of its bits are set",
            "Export it again with checkpoint_format: gptq_v2.",
        )
    codes = unpack(layer.read(Role.WEIGHT).T, bits, inputs)
    return _scaled(layer, codes, zeros.T + np.float32(zero_offset), xp)


def awq(layer: QuantizedLayer, xp: Any) -> Any:
    """Words along the outputs, eight of them interleaved in each."""
    codes = _deinterleaved(layer.read(Role.WEIGHT)).T
    zeros = _deinterleaved(layer.read(Role.WEIGHT_ZERO_POINT)).T
    return _scaled(layer, codes, zeros, xp)


def _deinterleaved(words: np.ndarray) -> np.ndarray:
    """Codes of four bits, uint8, shape (rows, 8 * columns)."""
    rows, columns = words.shape
    fields = unpack(words, 4, 8 * columns).reshape((rows, columns, 8))
    return fields[..., list(AWQ_COLUMNS)].reshape((rows, 8 * columns))


def _scaled(layer: QuantizedLayer, codes: np.ndarray, zeros: np.ndarray, xp: Any) -> Any:
    """The weight.

    Args:
        layer: For its scales and its order.
        codes: Shape (out_features, in_features).
        zeros: Shape (out_features, groups).
        xp: numpy or torch.
    """
    assert layer.scheme is not None, "the layout is described"
    info = layer.tensors[Role.WEIGHT_SCALE]
    scale = np.ascontiguousarray(decode_float(layer.read(Role.WEIGHT_SCALE), info.dtype, np).T)
    order = _order(layer, codes.shape[1], scale.shape[1])
    by_input = None if order is None else xp.asarray(order)
    values = xp.asarray(codes.astype("float32", order="C"))
    for change, per in ((operator.isub, zeros), (operator.imul, scale)):
        part = xp.asarray(per.astype("float32", order="C"))
        apply(change, values, part, layer.scheme, xp, by_input)
    return values


def _order(layer: QuantizedLayer, inputs: int, groups: int) -> np.ndarray | None:
    """Each input's group, int64; None where they follow one another and fill the row."""
    assert layer.scheme is not None, "the layout is described"
    size = layer.scheme.group_size or inputs
    counted = np.arange(inputs) // size
    if Role.WEIGHT_G_IDX in layer.tensors:
        order: np.ndarray = layer.read(Role.WEIGHT_G_IDX).astype("int64")
        inside = order.min() >= 0 and order.max() < groups
        require(layer, bool(inside), Role.WEIGHT_G_IDX)
        if not (order == counted).all():
            return order
    return counted if inputs % size else None
