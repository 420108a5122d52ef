"""The rounding of a quantized layer's input, as the runtime's kernels do it.

Pure functions of torch tensors: codes are held as the values that they stand for, in float32.
`modelopt` is the other order of the same arithmetic, in which ModelOpt calibrates: what it alone
changes is the *rounding floor* of a comparison.

Source: https://github.com/vllm-project/vllm (`csrc/quantization/w8a8/fp8/common.cu`,
`csrc/quantization/fp4/nvfp4_quant_kernels.cu`), https://github.com/NVIDIA/TensorRT-LLM
(`cpp/tensorrt_llm/common/cudaFp8Utils.cu`), https://github.com/NVIDIA/Model-Optimizer
(`modelopt/torch/quantization/tensor_quant.py`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from gate.quantization import Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Order = Literal["runtime", "modelopt"]
"""`runtime` divides by the scale; `modelopt` multiplies by the rounded reciprocal."""

E4M3_MAX = 448.0
E2M1_MAX = 6.0

LARGEST = {("float", 8): E4M3_MAX, ("float", 4): E2M1_MAX, ("int", 8): 127.0}
"""The largest code by a scheme's type and bits; each is one that inputs can be rounded to."""

MX_GROUP = 32
"""Inputs that share a power of two. Groups of any other size share a float32."""

E8M0_BIAS = 127.0
"""Powers of two from -127 to 127 are scales."""


def round_e4m3(x: "Tensor") -> "Tensor":
    """The nearest E4M3 value, ties to even, saturated at 448; NaN stays NaN.

    Source: arXiv 2209.05433, section 3.
    """
    import torch

    # PyTorch's own conversion turns what overflows into NaN; kernels saturate.
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).to(torch.float32)


def round_int8(x: "Tensor") -> "Tensor":
    """The nearest of -128 to 127, ties to even, saturated; NaN stays NaN."""
    import torch

    return torch.round(x).clamp(-128, 127)


def round_e2m1(x: "Tensor") -> "Tensor":
    """The nearest E2M1 value (0, 0.5, 1, 1.5, 2, 3, 4, 6), ties to even, saturated at 6.

    Source: OCP Microscaling Formats 1.0, section 5.3.3; PTX `cvt.rn.satfinite.e2m1x2`.
    """
    import torch

    size = x.abs().clamp(max=E2M1_MAX)
    # Values lie 0.5 apart up to 2, 1 apart up to 4, 2 apart up to 6.
    step = 0.5 + 0.5 * (size >= 2) + (size >= 4)
    return torch.copysign(torch.round(size / step) * step, x)


def static(
    x: "Tensor", scheme: Scheme, input_scale: "Tensor", order: Order = "runtime"
) -> "tuple[Tensor, Tensor]":
    """Codes and scale of an FP8 or INT8 input with a scale that is given: amax / the largest code.

    Args:
        x: Any floating-point dtype, any shape.
        scheme: Which codes.
        input_scale: float32 on the device of `x`, of a shape that goes with its.
        order: See `Order`.

    Returns:
        Codes of the shape of `x`, and the scale by which they are multiplied; both float32.
    """
    x, largest = x.float(), LARGEST[scheme.type, scheme.num_bits]
    if order == "runtime":
        return _round(x / input_scale, scheme), input_scale
    inverse = largest / (input_scale * largest)
    return _round(x * inverse, scheme), 1 / inverse


def dynamic(x: "Tensor", scheme: Scheme, order: Order = "runtime") -> "tuple[Tensor, Tensor]":
    """Codes and scales of an FP8 or INT8 input whose own amax makes the scale.

    An INT8 kernel multiplies by the rounded 127 / amax, and the other order divides.

    Args:
        x: Shape (..., in_features).
        scheme: With a scale for all of `x`, for each token, or for each group.
        order: See `Order`.

    Returns:
        Codes of the shape of `x`, for groups of (..., groups, group_size); scales of a shape that
        goes with it; both float32.
    """
    import torch

    x, largest = x.float(), LARGEST[scheme.type, scheme.num_bits]
    if scheme.strategy == "group":
        assert scheme.group_size, "it is implemented"
        x = _groups(x, scheme.group_size)
    size = x.abs()
    amax = size.amax() if scheme.strategy == "tensor" else size.amax(dim=-1, keepdim=True)
    # What is all zeros stays so, whatever its scale.
    scale = torch.where(amax == 0, 1.0, amax / largest)
    if scheme.type == "float":
        return static(x, scheme, scale, order)
    if order == "runtime":
        # A Python number divided by a tensor is multiplied by its rounded reciprocal.
        inverse = torch.full_like(amax, largest) / amax
        return _round(x * torch.where(amax == 0, 0.0, inverse), scheme), scale
    return _round(x / scale, scheme), scale


def mx(x: "Tensor", scheme: Scheme, order: Order = "runtime") -> "tuple[Tensor, Tensor]":
    """Codes and scales of an MXFP8 or MXFP4 input: a power of two for each group of 32.

    It is the smallest that holds the group: 2 ** ceil(log2(amax / the largest code)), as NVIDIA's
    kernels round it (the standard leaves that open); `modelopt` computes a rounded logarithm.

    Args:
        x: Shape (..., in_features).
        scheme: Which codes.
        order: See `Order`.

    Returns:
        Codes of shape (..., groups, group_size), scales of shape (..., groups, 1); both float32.

    Source: OCP Microscaling Formats 1.0, section 6.3; PTX `cvt.rp.satfinite.ue8m0x2`.
    """
    import torch

    blocks, largest = _groups(x.float(), MX_GROUP), LARGEST[scheme.type, scheme.num_bits]
    amax = blocks.abs().amax(dim=-1, keepdim=True)
    if order == "runtime":
        mantissa, above = torch.frexp(amax * (1 / largest))
        exponent = (above - (mantissa == 0.5).to(above.dtype)).float()
    else:
        exponent = torch.log2(amax / largest).ceil()
    exponent = torch.where(amax == 0, -E8M0_BIAS, exponent.clamp(-E8M0_BIAS, E8M0_BIAS))
    scale = torch.exp2(exponent)
    return _round(blocks / scale, scheme), scale


def nvfp4(
    x: "Tensor", input_scale: "Tensor", group_size: int, order: Order = "runtime"
) -> "tuple[Tensor, Tensor]":
    """Codes and scales of an NVFP4 input: dynamic blocks under one stored scale.

    With g = 1 / input_scale, a block's scale is s = E4M3(g * blockamax / 6) and its codes are
    E2M1(x * (1 / (s * (1 / g)))); it stands for code * s * input_scale. A block whose scale
    rounds to zero is zero.

    Args:
        x: Shape (..., in_features), in_features divisible by `group_size`.
        input_scale: float32 scalar, amax / (6 * 448).
        group_size: Inputs that share a scale.
        order: See `Order`.

    Returns:
        Codes of shape (..., blocks, group_size), scales of shape (..., blocks, 1); both float32.
    """
    import torch

    blocks = x.float().reshape((*x.shape[:-1], -1, group_size))
    amax = blocks.abs().amax(dim=-1, keepdim=True)
    if order == "runtime":
        inverse = 1 / input_scale
        scale = round_e4m3(inverse * (amax * (1 / E2M1_MAX)))
        factor = 1 / (scale * (1 / inverse))
        codes = round_e2m1(blocks * factor)
    else:
        scale = round_e4m3(amax / (E2M1_MAX * input_scale))
        codes = round_e2m1(blocks / (scale * input_scale))
    # Multiplied by an infinite factor, a block that rounds to zero would be infinite or NaN.
    return torch.where(scale == 0, 0.0, codes), scale * input_scale


def quantize(
    x: "Tensor", scheme: Scheme, input_scale: "Tensor | None", order: Order = "runtime"
) -> "tuple[Tensor, Tensor]":
    """Codes and scales of an input under any scheme; float32, codes * scales is what they mean.

    Args:
        x: Shape (..., in_features).
        scheme: How a layer's input is quantized.
        input_scale: float32 scalar on the device of `x`; None where no scale is stored.
        order: See `Order`.

    Raises:
        ValueError: A scheme without an implementation.
    """
    if not implemented(scheme):
        raise ValueError(f"inputs as {scheme} are not implemented")
    if scheme.strategy == "group" and scheme.group_size == MX_GROUP and scheme.type == "float":
        return mx(x, scheme, order)
    if scheme.strategy == "tensor_group" and scheme.group_size and input_scale is not None:
        return nvfp4(x, input_scale, scheme.group_size, order)
    # Some exporters store the scale of an input whose scale the others leave to the runtime.
    if input_scale is not None and scheme.strategy == "tensor":
        return static(x, scheme, input_scale, order)
    if scheme.strategy == "tensor_group" or not scheme.dynamic:
        raise ValueError(f"a {scheme.strategy} scheme needs a stored input_scale")
    return dynamic(x, scheme, order)


def implemented(scheme: Scheme) -> bool:
    """Whether inputs can be rounded under a scheme."""
    kind = (scheme.type, scheme.num_bits)
    if kind not in LARGEST or not scheme.symmetric:
        return False
    if kind == ("float", 4):
        grouped = scheme.strategy == "group" and scheme.group_size == MX_GROUP and scheme.dynamic
        return grouped or (scheme.strategy == "tensor_group" and bool(scheme.group_size))
    if scheme.strategy == "group":
        return scheme.dynamic and bool(scheme.group_size)
    return scheme.strategy == "tensor" or (scheme.strategy == "token" and scheme.dynamic)


def named(scheme: Scheme) -> str:
    """What inputs become under a scheme, as it is called: "NVFP4"."""
    letters = "INT" if scheme.type == "int" else "FP"
    if scheme.strategy == "tensor_group":
        letters = f"NV{letters}"
    elif scheme.strategy == "group" and scheme.group_size == MX_GROUP and scheme.type == "float":
        letters = f"MX{letters}"
    return f"{letters}{scheme.num_bits}"


def fake_quantize(
    x: "Tensor", scheme: Scheme, input_scale: "Tensor | None", order: Order = "runtime"
) -> "Tensor":
    """`x` as it is after quantization and back: its shape and dtype; arguments as `quantize`.

    Columns with an outlier in any row stay as they are, and the rest as if there were zeros.

    Source of outliers: arXiv 2208.07339, section 3; bitsandbytes `int8_vectorwise_quant`.
    """
    if scheme.outlier is not None:
        large = x.abs() >= scheme.outlier
        kept = large.reshape((-1, x.shape[-1])).any(dim=0)
        rest = replace(scheme, outlier=None)
        small = fake_quantize(x.masked_fill(large, 0.0), rest, input_scale, order)
        return small.where(~kept, x)
    codes, scale = quantize(x, scheme, input_scale, order)
    values = codes * scale
    if values.ndim > x.ndim:
        values = values.flatten(-2)[..., : x.shape[-1]]
    return values.reshape(x.shape).to(x.dtype)


def _round(x: "Tensor", scheme: Scheme) -> "Tensor":
    if scheme.type == "int":
        return round_int8(x)
    return round_e4m3(x) if scheme.num_bits == 8 else round_e2m1(x)


def _groups(x: "Tensor", group_size: int) -> "Tensor":
    """Shape (..., groups, group_size); zeros fill the last group where it is shorter."""
    import torch

    short = -x.shape[-1] % group_size
    if short:
        x = torch.nn.functional.pad(x, (0, short))
    return x.reshape((*x.shape[:-1], -1, group_size))


def all_rounded(dtype: "torch.dtype", scheme: Scheme, input_scale: "Tensor") -> "Tensor":
    """What `fake_quantize` makes of each of the 65,536 values of a 16-bit dtype, by its bits.

    Args:
        dtype: bfloat16 or float16.
        scheme: One under which values are rounded each by itself: FP8 or INT8 with one
            stored scale.
        input_scale: float32 scalar.

    Returns:
        Shape (65536,), in `dtype`, on the device of the scale.
    """
    import torch

    bits = torch.arange(2**16, dtype=torch.int32, device=input_scale.device).to(torch.int16)
    return fake_quantize(bits.view(dtype), scheme, input_scale)


def look_up(x: "Tensor", rounded: "Tensor") -> "Tensor":
    """`x` rounded by `all_rounded` of its dtype: several times as fast as to round it again."""
    import torch

    bits = x.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)
    return rounded.index_select(0, bits.reshape(-1)).view(x.shape)
