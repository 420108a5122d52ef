"""How ModelOpt's layouts are decoded.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/quantization/qtensor/`).
"""

from collections.abc import Callable
from typing import Any

from gate.codes import E2M1_PAIRS, E4M3, decode_float, lookup
from gate.quantization import QuantizedLayer, Role

Decoder = Callable[[QuantizedLayer, Any], Any]


def per_tensor(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with one scale."""
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape(())


def per_channel(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with a scale for each output channel."""
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape((-1, 1))


def per_block(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with a scale for each block; blocks at the lower and right edge may be partial."""
    codes = _codes(layer, xp)
    rows, columns = layer.scheme.block_structure  # type: ignore[union-attr, misc]
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale.reshape((-(-codes.shape[0] // rows), -(-codes.shape[1] // columns)))
    row_block = xp.arange(codes.shape[0]) // rows
    column_block = xp.arange(codes.shape[1]) // columns
    return codes * scale[row_block][:, column_block]


def nvfp4(layer: QuantizedLayer, xp: Any) -> Any:
    """Two-level scales: E4M3 per group times one float32 for the tensor."""
    packed = layer.read(Role.WEIGHT)
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale * _scale(layer, Role.WEIGHT_GLOBAL_SCALE, xp).reshape(())
    values = lookup(E2M1_PAIRS, packed, xp).reshape((*scale.shape, -1))
    return (values * scale[..., None]).reshape((packed.shape[0], 2 * packed.shape[1]))


def _codes(layer: QuantizedLayer, xp: Any) -> Any:
    return lookup(E4M3, layer.read(Role.WEIGHT), xp)


def _scale(layer: QuantizedLayer, role: Role, xp: Any) -> Any:
    return decode_float(layer.read(role), layer.tensors[role].dtype, xp)
