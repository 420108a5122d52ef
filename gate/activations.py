"""The rounding of a quantized layer's input, as the runtime's kernels do it.

Pure functions of torch tensors: codes are held as the values that they stand for, in float32.
`modelopt` is the other order of the same arithmetic, in which ModelOpt calibrates: what it alone
changes is the *rounding floor* of a comparison.

Source: https://github.com/vllm-project/vllm (`csrc/quantization/w8a8/fp8/common.cu`,
`csrc/quantization/fp4/nvfp4_quant_kernels.cu`), https://github.com/NVIDIA/TensorRT-LLM
(`cpp/tensorrt_llm/common/cudaFp8Utils.cu`), https://github.com/NVIDIA/Model-Optimizer
(`modelopt/torch/quantization/tensor_quant.py`).
"""

from typing import TYPE_CHECKING, Literal

from gate.quantization import Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Order = Literal["runtime", "modelopt"]
"""`runtime` divides by the scale; `modelopt` multiplies by the rounded reciprocal."""

E4M3_MAX = 448.0
E2M1_MAX = 6.0


def round_e4m3(x: "Tensor") -> "Tensor":
    """The nearest E4M3 value, ties to even, saturated at 448; NaN stays NaN.

    Source: arXiv 2209.05433, section 3.
    """
    import torch

    # PyTorch's own conversion turns what overflows into NaN; kernels saturate.
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).to(torch.float32)


def round_e2m1(x: "Tensor") -> "Tensor":
    """The nearest E2M1 value (0, 0.5, 1, 1.5, 2, 3, 4, 6), ties to even, saturated at 6.

    Source: OCP Microscaling Formats 1.0, section 5.3.3; PTX `cvt.rn.satfinite.e2m1x2`.
    """
    import torch

    size = x.abs().clamp(max=E2M1_MAX)
    # Values lie 0.5 apart up to 2, 1 apart up to 4, 2 apart up to 6.
    step = 0.5 + 0.5 * (size >= 2) + (size >= 4)
    return torch.copysign(torch.round(size / step) * step, x)


def fp8_tensor(
    x: "Tensor", input_scale: "Tensor", order: Order = "runtime"
) -> "tuple[Tensor, Tensor]":
    """Codes and scale of a static FP8 input: one stored scale, amax / 448.

    Args:
        x: Any floating-point dtype, any shape.
        input_scale: float32 scalar on the device of `x`.
        order: See `Order`.

    Returns:
        Codes of the shape of `x`, and the scale by which they are multiplied; both float32.
    """
    x = x.float()
    if order == "runtime":
        return round_e4m3(x / input_scale), input_scale
    inverse = E4M3_MAX / (input_scale * E4M3_MAX)
    return round_e4m3(x * inverse), 1 / inverse


def fp8_token(x: "Tensor", order: Order = "runtime") -> "tuple[Tensor, Tensor]":
    """Codes and scales of a dynamic FP8 input: each token's own amax / 448.

    Args:
        x: Shape (..., in_features).
        order: See `Order`.

    Returns:
        Codes of the shape of `x`, scales of shape (..., 1); both float32.
    """
    import torch

    amax = x.float().abs().amax(dim=-1, keepdim=True)
    # A token of zeros stays zeros, whatever its scale.
    scale = torch.where(amax == 0, 1.0, amax / E4M3_MAX)
    return fp8_tensor(x, scale, order)


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
    kind = (scheme.type, scheme.num_bits, scheme.strategy)
    if kind == ("float", 8, "token"):
        return fp8_token(x, order)
    if input_scale is None:
        raise ValueError(f"a {scheme.strategy} scheme needs a stored input_scale")
    if kind == ("float", 8, "tensor"):
        return fp8_tensor(x, input_scale, order)
    if kind == ("float", 4, "tensor_group") and scheme.group_size:
        return nvfp4(x, input_scale, scheme.group_size, order)
    raise ValueError(f"inputs as {kind} are not implemented")


def fake_quantize(
    x: "Tensor", scheme: Scheme, input_scale: "Tensor | None", order: Order = "runtime"
) -> "Tensor":
    """`x` as it is after quantization and back: its shape and dtype; arguments as `quantize`."""
    codes, scale = quantize(x, scheme, input_scale, order)
    return (codes * scale).reshape(x.shape).to(x.dtype)


def all_rounded(dtype: "torch.dtype", scheme: Scheme, input_scale: "Tensor") -> "Tensor":
    """What `fake_quantize` makes of each of the 65,536 values of a 16-bit dtype, by its bits.

    Args:
        dtype: bfloat16 or float16.
        scheme: One under which values are rounded each by itself: FP8 with one stored scale.
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
