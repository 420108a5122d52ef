"""How compressed-tensors' layouts are decoded.

The library computes in the dtype of the scales; what comes from here is float32 that becomes the
same number in that dtype: codes of up to 8 bits and the differences between two are exact there.

Source: https://github.com/vllm-project/compressed-tensors (`compressors/`,
`quantization/lifecycle/forward_helpers.py`).
"""

import operator
from typing import Any

from gate.codes import E2M1_PAIRS, E2M3, E4M3, decode_float, lookup, unpack
from gate.formats.compressed_tensors_layout import WORD
from gate.formats.decoding import apply, require, require_as_described
from gate.quantization import QuantizedLayer, Role, Scheme

STRATEGIES = frozenset({"tensor", "channel", "group", "tensor_group", "block"})


def decodes(scheme: Scheme) -> bool:
    """Whether weights of this scheme can be decoded."""
    asymmetric_float = scheme.type == "float" and not scheme.symmetric
    return scheme.num_bits <= 8 and scheme.strategy in STRATEGIES and not asymmetric_float


def decode(layer: QuantizedLayer, scheme: Scheme, xp: Any) -> Any:
    """float32, shape (..., out_features, in_features): (codes - zero points) * scales.

    Raises:
        CheckpointError: Tensors that contradict the declaration or one another.
    """
    import numpy as np

    require_as_described(layer)
    values = _codes(layer, scheme, xp)
    scale = decode_float(layer.read(Role.WEIGHT_SCALE), layer.tensors[Role.WEIGHT_SCALE].dtype, xp)
    if scheme.group_size:
        parts = values.shape[-1] / scheme.group_size
        require(layer, parts == scale.shape[-1], Role.WEIGHT_SCALE)
    if Role.WEIGHT_GLOBAL_DIVISOR in layer.tensors:
        divisor = decode_float(layer.read(Role.WEIGHT_GLOBAL_DIVISOR), "F32", xp)
        with np.errstate(all="ignore"):  # as in `apply`
            scale = scale / divisor.reshape(())
    order = _order(layer, values.shape[-1], xp)
    if Role.WEIGHT_ZERO_POINT in layer.tensors:
        apply(operator.isub, values, _zero_points(layer, scheme, xp), scheme, xp, order)
    apply(operator.imul, values, scale, scheme, xp, order)
    return values


def _codes(layer: QuantizedLayer, scheme: Scheme, xp: Any) -> Any:
    """What the weight's codes stand for before they are scaled."""
    stored = layer.read(Role.WEIGHT)
    if scheme.type == "int":
        if layer.tensors[Role.WEIGHT].dtype != "I32":
            return xp.asarray(stored.astype("float32"))
        codes = unpack(stored, scheme.num_bits, _columns(layer, scheme))
        return xp.asarray(codes.astype("float32")) - _offset(scheme)
    if scheme.num_bits == 8:
        return lookup(E4M3, stored, xp)
    if scheme.num_bits == 4:
        return lookup(E2M1_PAIRS, stored, xp).reshape((*stored.shape[:-1], -1))
    return lookup(E2M3, unpack(stored, scheme.num_bits, stored.shape[-1] * 4 // 3), xp)


def _columns(layer: QuantizedLayer, scheme: Scheme) -> int:
    """Inputs of a packed weight: its last word may be filled in part."""
    *outer, columns = layer.read(Role.WEIGHT_SHAPE).tolist()
    *rows, words = layer.tensors[Role.WEIGHT].shape
    fits = outer == rows and -(-columns * scheme.num_bits // WORD) == words
    require(layer, fits, Role.WEIGHT_SHAPE)
    return int(columns)


def _offset(scheme: Scheme) -> float:
    """Packed codes count from the lowest value."""
    return float(2 ** (scheme.num_bits - 1))


def _zero_points(layer: QuantizedLayer, scheme: Scheme, xp: Any) -> Any:
    """Of the shape of the scales."""
    info = layer.tensors[Role.WEIGHT_ZERO_POINT]
    stored = layer.read(Role.WEIGHT_ZERO_POINT)
    if info.dtype != "I32":
        return xp.asarray(stored.astype("float32"))
    # Packed along the outputs, so that runtimes split them as they split the weight.
    rows = layer.tensors[Role.WEIGHT].shape[-2]
    codes = unpack(stored.swapaxes(-1, -2), scheme.num_bits, rows).swapaxes(-1, -2)
    return xp.asarray(codes.astype("float32")) - _offset(scheme)


def _order(layer: QuantizedLayer, columns: int, xp: Any) -> Any:
    """Each input's group where the inputs are ordered by activation; else None."""
    if Role.WEIGHT_G_IDX not in layer.tensors:
        return None
    order = layer.read(Role.WEIGHT_G_IDX)
    if (order == -1).all():
        return None  # never filled in
    *_, groups = (0, *layer.tensors[Role.WEIGHT_SCALE].shape)
    sound = order.shape == (columns,) and 0 <= order.min() <= order.max() < groups
    require(layer, sound, Role.WEIGHT_G_IDX)
    return xp.asarray(order.astype("int64"))
