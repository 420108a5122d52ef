"""How quanto's tensors are decoded.

Source: https://github.com/huggingface/optimum-quanto (`tensor/qbytes.py`, `tensor/qbits.py`,
`library/unpack.py`).
"""

import operator
from typing import TYPE_CHECKING, Any

from gate.codes import decode_float
from gate.formats.decoding import apply, require, require_as_described, rounded
from gate.quantization import QuantizedLayer, Role, Scheme

if TYPE_CHECKING:
    import numpy as np

SINGLE = Scheme(8, "int", "tensor")


def decode(layer: QuantizedLayer, scheme: Scheme, xp: Any) -> Any:
    """float32, of the layer's shape.

    Raises:
        CheckpointError: Tensors that contradict the declaration.
    """
    require_as_described(layer)
    stored, info = layer.read(Role.WEIGHT), layer.tensors[Role.WEIGHT_SCALE]
    if scheme.strategy == "group":
        return _grouped(layer, stored, scheme.num_bits, xp)
    if scheme.type == "float":
        values = decode_float(stored, layer.tensors[Role.WEIGHT].dtype, xp)
    else:
        values = xp.asarray(stored.astype("float32"))
    scale = decode_float(layer.read(Role.WEIGHT_SCALE), info.dtype, xp)
    apply(operator.imul, values, scale, scheme if info.shape else SINGLE, xp)
    return values


def _grouped(layer: QuantizedLayer, stored: "np.ndarray", bits: int, xp: Any) -> Any:
    """Groups, each code * scale - shift, computed as the library does: in the scale's dtype."""
    import numpy as np

    info = layer.tensors[Role.WEIGHT_SCALE]
    scale, shift = (
        decode_float(layer.read(role), layer.tensors[role].dtype, np)
        for role in (Role.WEIGHT_SCALE, Role.WEIGHT_ZERO_POINT)
    )
    require(layer, shift.shape == scale.shape, Role.WEIGHT_ZERO_POINT)
    # One byte holds rows that lie far apart: the first ones in the lowest bits.
    parts = [stored >> low & (2**bits - 1) for low in range(0, 8, bits)]
    values = np.concatenate(parts)[: len(scale)].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # as in `apply`
        values *= scale
        values = rounded(values, info.dtype)
        values -= shift
    return xp.asarray(values.reshape(layer.shape))
