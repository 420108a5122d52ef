"""What each of ModelOpt's algorithms stores, and how it is decoded.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gate.codes import E2M1_PAIRS, E4M3, decode_float, lookup
from gate.quantization import QuantizedLayer, Role, Scheme

Decoder = Callable[[QuantizedLayer, Any], Any]


@dataclass(frozen=True)
class Algorithm:
    """What one `quant_algo` stores.

    Attributes:
        scheme: The weight's; None where the layout is not described yet.
        input_scheme: The input's; None for weight-only.
        weight_bits: Width of a weight.
        decode: None where there is no decoder yet.
    """

    weight_bits: int
    scheme: Scheme | None = None
    input_scheme: Scheme | None = None
    decode: Decoder | None = None


def _per_tensor(layer: QuantizedLayer, xp: Any) -> Any:
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape(())


def _per_channel(layer: QuantizedLayer, xp: Any) -> Any:
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape((-1, 1))


def _per_block(layer: QuantizedLayer, xp: Any) -> Any:
    """Blocks at the lower and right edge may be partial."""
    codes = _codes(layer, xp)
    rows, columns = layer.scheme.block_structure  # type: ignore[union-attr, misc]
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale.reshape((-(-codes.shape[0] // rows), -(-codes.shape[1] // columns)))
    row_block = xp.arange(codes.shape[0]) // rows
    column_block = xp.arange(codes.shape[1]) // columns
    return codes * scale[row_block][:, column_block]


def _nvfp4(layer: QuantizedLayer, xp: Any) -> Any:
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


_FP8 = Scheme(8, "float", "tensor")
_FP8_PER_TOKEN = Scheme(8, "float", "token", dynamic=True)
_NVFP4 = Scheme(4, "float", "tensor_group", group_size=16)

ALGORITHMS: Mapping[str, Algorithm] = {
    "FP8": Algorithm(8, _FP8, _FP8, _per_tensor),
    "FP8_PER_CHANNEL_PER_TOKEN": Algorithm(
        8, Scheme(8, "float", "channel"), _FP8_PER_TOKEN, _per_channel
    ),
    "FP8_PB_WO": Algorithm(
        8, Scheme(8, "float", "block", block_structure=(128, 128)), None, _per_block
    ),
    "NVFP4": Algorithm(4, _NVFP4, replace(_NVFP4, dynamic=True), _nvfp4),
    "W4A16_NVFP4": Algorithm(4, _NVFP4, None, _nvfp4),
    "FP8_PB_REAL": Algorithm(8),
    "FP8_PB": Algorithm(8),
    "NVFP4_AWQ": Algorithm(4),
    "NVFP4_SVD": Algorithm(4),
    "W4A8_NVFP4_FP8": Algorithm(4),
    "W4A8_MXFP4_FP8": Algorithm(4),
    "W4A8_MXFP4_MXFP8": Algorithm(4),
    "W4A16_MXFP4": Algorithm(4),
    "MXFP4": Algorithm(4),
    "MXFP8": Algorithm(8),
    "W4A16_AWQ": Algorithm(4),
    "W4A8_AWQ": Algorithm(4),
    "W8A16": Algorithm(8),
    "W8A8_SQ_PER_CHANNEL": Algorithm(8),
}
"""By `quant_algo`, upper case. Source: ModelOpt 0.47 and TensorRT-LLM `QuantAlgo`."""


def algorithm(name: str | None) -> Algorithm | None:
    """The algorithm of that name in any case; None if there is no such."""
    return ALGORITHMS.get(name.upper()) if name else None
