"""How ModelOpt's layouts are decoded.

Where one tensor holds all experts it is stored as (experts, in_features, out_features), and decoded
to (experts, out_features, in_features).

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/quantization/qtensor/`,
`modelopt/torch/export/quant_utils.py`).
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from gate.codes import E2M1_PAIRS, E4M3, INT4_PAIRS, decode_float, lookup
from gate.formats.decoding import apply
from gate.quantization import QuantizedLayer, Role

Decoder = Callable[[QuantizedLayer, Any], Any]


def fp8(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with one scale, or one for each output channel or expert."""
    codes = _outputs_first(lookup(E4M3, layer.read(Role.WEIGHT), xp))
    return _scaled(codes, _scale(layer, Role.WEIGHT_SCALE, xp))


def int8(layer: QuantizedLayer, xp: Any) -> Any:
    """Signed bytes with a scale for each output channel."""
    codes = xp.asarray(layer.read(Role.WEIGHT).astype("float32"))
    return _scaled(codes, _scale(layer, Role.WEIGHT_SCALE, xp))


def per_block(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with a scale for each block; blocks at the lower and right edge may be partial."""
    codes = _outputs_first(lookup(E4M3, layer.read(Role.WEIGHT), xp))
    scheme = layer.scheme
    assert scheme and scheme.block_structure, "the algorithm's own"
    rows, columns = scheme.block_structure
    *experts, outputs, inputs = codes.shape
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale.reshape((*experts, -(-outputs // rows), -(-inputs // columns)))
    apply(operator.imul, codes, scale, scheme, xp)
    return codes


def nvfp4(layer: QuantizedLayer, xp: Any) -> Any:
    """Two-level scales: E4M3 per group times one float32 for the tensor, or for each expert."""
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    total = _scale(layer, Role.WEIGHT_GLOBAL_SCALE, xp).reshape(-1)
    return _grouped(layer, E2M1_PAIRS, scale * total.reshape((-1,) + (1,) * (scale.ndim - 1)), xp)


def mxfp4(layer: QuantizedLayer, xp: Any) -> Any:
    """FP4 with a power of two for each group."""
    return _grouped(layer, E2M1_PAIRS, _scale(layer, Role.WEIGHT_SCALE, xp), xp)


def mxfp8(layer: QuantizedLayer, xp: Any) -> Any:
    """FP8 with a power of two for each group."""
    return _grouped(layer, E4M3, _scale(layer, Role.WEIGHT_SCALE, xp), xp)


def int4(layer: QuantizedLayer, xp: Any) -> Any:
    """Signed four bits with a scale for each group; output channels 2r and 2r + 1 share a byte."""
    packed = layer.read(Role.WEIGHT)
    pairs = lookup(INT4_PAIRS, packed, xp)
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    values = xp.stack((pairs[..., 0], pairs[..., 1]), 1).reshape((*scale.shape, -1))
    values *= scale[..., None]
    return values.reshape((2 * packed.shape[0], packed.shape[1]))


def unsmoothed(layer: QuantizedLayer, weight: Any, xp: Any) -> Any:
    """A decoded weight as it multiplies inputs that were neither smoothed nor split.

    A layer multiplies its input by `pre_quant_scale`, then by the decoded weight and by the product
    of the low-rank factors.

    Args:
        layer: Whose weight.
        weight: Shape (out_features, in_features); changed in place.
        xp: numpy or torch.
    """
    if Role.LORA_A in layer.tensors:
        weight += xp.matmul(_scale(layer, Role.LORA_B, xp), _scale(layer, Role.LORA_A, xp))
    if Role.PRE_QUANT_SCALE in layer.tensors:
        weight *= _scale(layer, Role.PRE_QUANT_SCALE, xp)
    return weight


def _scaled(codes: Any, scale: Any) -> Any:
    """Codes times the scale of their row, of their expert, or of all."""
    count, sides = math.prod(scale.shape), len(codes.shape)
    if count == math.prod(codes.shape[:-1]):
        codes *= scale.reshape((*codes.shape[:-1], 1))
    else:
        codes *= scale.reshape((count,) + (1,) * (sides - 1))
    return codes


def _grouped(layer: QuantizedLayer, table: Sequence[Any], scale: Any, xp: Any) -> Any:
    """Values by table, times the scale of each group of inputs; or of outputs, for experts."""
    codes = layer.read(Role.WEIGHT)
    stacked = codes.ndim == 3
    by_outputs = stacked and layer.shape is not None and scale.shape[1] == layer.shape[2]
    if stacked and not by_outputs:
        codes, scale = codes.swapaxes(1, 2), scale.swapaxes(1, 2)
    values = lookup(table, codes, xp).reshape((*scale.shape, -1))
    values *= scale[..., None]
    values = values.reshape((*scale.shape[:-1], -1))
    return values.swapaxes(1, 2) if by_outputs else values


def _outputs_first(values: Any) -> Any:
    return values.swapaxes(1, 2) if values.ndim == 3 else values


def _scale(layer: QuantizedLayer, role: Role, xp: Any) -> Any:
    return decode_float(layer.read(role), layer.tensors[role].dtype, xp)
