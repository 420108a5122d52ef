"""What each of ModelOpt's algorithms stores, and how it is decoded.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gate.formats.modelopt_decoders import (
    Decoder,
    fp8,
    int4,
    int8,
    mxfp4,
    mxfp8,
    nvfp4,
    per_block,
)
from gate.quantization import Scheme


@dataclass(frozen=True)
class Algorithm:
    """What one `quant_algo` stores.

    Attributes:
        weight_bits: Width of a weight.
        scheme: The weight's; None where the layout is not described.
        input_scheme: The input's; None for weight-only.
        weight: Dtype of the stored weight; U8 holds two weights of four bits.
        scale: Dtypes of `weight_scale`.
        packed_along: Features of which two share a byte, for four bits.
        experts_grouped_along: Features that share a scale where one tensor, of shape (experts,
            in_features, out_features), holds all experts; None where no exporter writes one.
        smoothed: Whether inputs may be multiplied by a `pre_quant_scale`.
        low_rank: Whether a product of two thin matrices may be added to the weight.
        input_scale: Whether the input's scale is stored, never, always, or by some exporters.
        decode: None where there is no decoder yet.
    """

    weight_bits: int
    scheme: Scheme | None = None
    input_scheme: Scheme | None = None
    weight: str = ""
    scale: frozenset[str] = frozenset()
    packed_along: Literal["in", "out"] = "in"
    experts_grouped_along: Literal["in", "out"] | None = None
    smoothed: bool = False
    low_rank: bool = False
    input_scale: Literal["never", "always", "maybe"] = "never"
    decode: Decoder | None = None


_F32 = frozenset({"F32"})
_E4M3 = frozenset({"F8_E4M3"})
_E8M0 = frozenset({"U8", "F8_E8M0"})

_FP8_TENSOR = Scheme(8, "float", "tensor")
_FP8_BLOCKS = Scheme(8, "float", "block", block_structure=(128, 128))
_MXFP8_GROUPS = Scheme(8, "float", "group", group_size=32)
_NVFP4_GROUPS = Scheme(4, "float", "tensor_group", group_size=16)
_MXFP4_GROUPS = Scheme(4, "float", "group", group_size=32)
_INT4_GROUPS = Scheme(4, "int", "group", group_size=128)
_INT8_CHANNELS = Scheme(8, "int", "channel")

_FP8 = Algorithm(8, _FP8_TENSOR, _FP8_TENSOR, "F8_E4M3", _F32, input_scale="always",
                 decode=fp8)  # fmt: skip
_FP8_PB = Algorithm(8, _FP8_BLOCKS, None, "F8_E4M3", _F32, decode=per_block)
_NVFP4 = Algorithm(4, _NVFP4_GROUPS, replace(_NVFP4_GROUPS, dynamic=True), "U8", _E4M3,
                   experts_grouped_along="in", input_scale="always", decode=nvfp4)  # fmt: skip
_NVFP4_AWQ = replace(_NVFP4, smoothed=True)
_MXFP4 = Algorithm(4, _MXFP4_GROUPS, None, "U8", _E8M0, experts_grouped_along="out",
                   decode=mxfp4)  # fmt: skip
_MXFP8_INPUT = replace(_MXFP8_GROUPS, dynamic=True)
_AWQ = Algorithm(4, _INT4_GROUPS, None, "U8", _F32, packed_along="out", smoothed=True,
                 decode=int4)  # fmt: skip
_INT8 = Algorithm(8, _INT8_CHANNELS, None, "I8", _F32, decode=int8)

ALGORITHMS: Mapping[str, Algorithm] = {
    "FP8": _FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": Algorithm(
        8,
        Scheme(8, "float", "channel"),
        Scheme(8, "float", "token", dynamic=True),
        "F8_E4M3",
        _F32,
        decode=fp8,
    ),
    "FP8_PB_WO": _FP8_PB,
    "FP8_PB_REAL": _FP8_PB,
    "FP8_PB": Algorithm(8),
    "NVFP4": _NVFP4,
    "W4A16_NVFP4": replace(_NVFP4, input_scheme=None, input_scale="never"),
    "NVFP4_AWQ": _NVFP4_AWQ,
    "NVFP4_SVD": replace(_NVFP4_AWQ, low_rank=True),
    "W4A8_NVFP4_FP8": replace(
        _NVFP4,
        scheme=replace(_NVFP4_GROUPS, group_size=32),
        input_scheme=_FP8_TENSOR,
        experts_grouped_along="out",
    ),
    "MXFP4": _MXFP4,
    "W4A16_MXFP4": _MXFP4,
    "W4A8_MXFP4_FP8": replace(
        _MXFP4, input_scheme=replace(_FP8_TENSOR, dynamic=True), input_scale="maybe"
    ),
    "W4A8_MXFP4_MXFP8": replace(_MXFP4, input_scheme=_MXFP8_INPUT),
    "MXFP8": Algorithm(
        8,
        _MXFP8_GROUPS,
        _MXFP8_INPUT,
        "F8_E4M3",
        _E8M0,
        experts_grouped_along="out",
        decode=mxfp8,
    ),
    "W4A16_AWQ": _AWQ,
    "W4A8_AWQ": replace(
        _AWQ,
        scheme=replace(_INT4_GROUPS, strategy="tensor_group"),
        input_scheme=_FP8_TENSOR,
        input_scale="always",
    ),
    "W8A16": _INT8,
    "W8A8_SQ_PER_CHANNEL": replace(
        _INT8, input_scheme=Scheme(8, "int", "tensor"), smoothed=True, input_scale="always"
    ),
}
"""By `quant_algo`, upper case. Source: ModelOpt 0.47 and TensorRT-LLM `QuantAlgo`."""


def algorithm(name: str | None) -> Algorithm | None:
    """The algorithm of that name in any case; None if there is no such."""
    return ALGORITHMS.get(name.upper()) if name else None
