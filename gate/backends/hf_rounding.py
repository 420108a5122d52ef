"""The rounding of one module's inputs, and of what multiplies them unrounded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gate.activations import (
    E4M3_MAX,
    LARGEST,
    Order,
    all_rounded,
    fake_quantize,
    look_up,
    named,
    quantize,
)
from gate.quantization import Scheme

if TYPE_CHECKING:
    import torch


@dataclass
class Rounding:
    """How every input is rounded at the moment.

    Attributes:
        counting: Whether codes are compared with those of the other order.
        changed, codes: What was counted: codes that differ, and all.
    """

    order: Order = "runtime"
    counting: bool = False
    changed: int = 0
    codes: int = 0


class InputQuantizer:
    """Rounds the inputs of one module.

    Args:
        scheme: How.
        input_scale: float32 scalar; None where no scale is stored.
        rounding: Shared by all quantizers of a model.
        smoothing: Shape (in_features,), by which inputs are multiplied before they are rounded and
            divided afterwards, since decoded weights hold it too; None for nothing.

    Attributes:
        observer: Told every input as it is rounded; None for nobody.
    """

    def __init__(
        self,
        scheme: Scheme,
        input_scale: "torch.Tensor | None",
        rounding: Rounding,
        smoothing: "torch.Tensor | None" = None,
    ) -> None:
        self.scheme, self.input_scale, self.rounding = scheme, input_scale, rounding
        self.smoothing = smoothing
        self.observer: Callable[[torch.Tensor], None] | None = None
        self._rounded: dict[torch.dtype, torch.Tensor] = {}

    @property
    def largest(self) -> float | None:
        """The largest input that the stored scale can hold; None where none is stored."""
        if self.input_scale is None:
            return None
        codes = LARGEST[self.scheme.type, self.scheme.num_bits]
        if self.scheme.strategy == "tensor_group":
            codes *= E4M3_MAX
        return codes * float(self.input_scale)

    @property
    def described(self) -> str:
        """What inputs are rounded to: "FP8 static"."""
        static = self.input_scale is not None and self.scheme.strategy == "tensor"
        return f"{named(self.scheme)} {'static' if static else 'dynamic'}"

    def __call__(self, x: "torch.Tensor") -> "torch.Tensor":
        """Quantize and dequantize `x`; gradients pass as if it were not rounded.

        Codes that change with the order are counted where that is asked for.
        """
        if x.requires_grad:
            return x + (self._smoothed(x.detach()) - x.detach())
        return self._smoothed(x)

    def _smoothed(self, x: "torch.Tensor") -> "torch.Tensor":
        if self.smoothing is None:
            return self._rounding_of(x)
        import torch

        if self.smoothing.device != x.device:
            self.smoothing = self.smoothing.to(x.device)
        factors = self.smoothing.to(x.dtype)
        # The weights of an input that is multiplied by zero are zero too.
        return torch.where(factors == 0, 0, self._rounding_of(x * factors) / factors)

    def _rounding_of(self, x: "torch.Tensor") -> "torch.Tensor":
        if self.observer is not None:
            self.observer(x)
        # A scale on the device divides exactly; a Python number may be inverted first.
        if self.input_scale is not None and self.input_scale.device != x.device:
            self.input_scale = self.input_scale.to(x.device)
        if self.rounding.counting:
            ours, _ = quantize(x, self.scheme, self.input_scale, "runtime")
            theirs, _ = quantize(x, self.scheme, self.input_scale, "modelopt")
            self.rounding.changed += int((ours != theirs).sum())
            self.rounding.codes += ours.numel()
        rounded = self._all_rounded(x.dtype)
        if rounded is not None:
            return look_up(x, rounded)
        return fake_quantize(x, self.scheme, self.input_scale, self.rounding.order)

    def _all_rounded(self, dtype: "torch.dtype") -> "torch.Tensor | None":
        """All values rounded beforehand, where each is rounded by itself and has 16 bits."""
        if self.input_scale is None or self.scheme.strategy != "tensor":
            return None
        if self.rounding.order != "runtime" or dtype.itemsize != 2:
            return None
        if dtype not in self._rounded:
            self._rounded[dtype] = all_rounded(dtype, self.scheme, self.input_scale)
        return self._rounded[dtype]

    def before(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The module's forward pre-hook."""
        x, *rest = args
        return (self(x), *rest)


class LowRank:
    """Low-rank factors of a layer that are multiplied by its input as it was before rounding.

    The layer's decoded weight holds their product, so that what rounding took away is given back.

    Args:
        down: Shape (rank, in_features), float32.
        up: Shape (out_features, rank), float32.
        quantizer: Of its input.

    Source: https://github.com/NVIDIA/Model-Optimizer (`nn/modules/quant_linear.py`).
    """

    def __init__(self, down: "torch.Tensor", up: "torch.Tensor", quantizer: InputQuantizer) -> None:
        smoothing = quantizer.smoothing
        self._factors = down if smoothing is None else down * smoothing, up
        self._quantizer = quantizer
        self._lost: torch.Tensor | None = None

    def attach(self, module: Any) -> None:
        """Round the module's inputs from now on, but for those of the factors."""
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *rest = args
        rounded = self._quantizer(x)
        self._lost = x - rounded
        return (rounded, *rest)

    def _after(self, module: Any, args: tuple[Any, ...], output: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import linear

        assert self._lost is not None, "set before"
        lost, self._lost = self._lost, None
        down, up = (factor.to(lost) for factor in self._factors)
        return output + linear(linear(lost, down), up)
