"""Quantized inputs of linear layers and of fused experts, by hooks on a loaded model."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.activations import (
    E2M1_MAX,
    E4M3_MAX,
    Order,
    all_rounded,
    fake_quantize,
    look_up,
    quantize,
)
from gate.backends.hf_names import Names
from gate.codes import decode_float
from gate.errors import BackendError
from gate.quantization import QuantizedLayer, Role, Scheme

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

    Attributes:
        observer: Told every input before it is rounded; None for nobody.
    """

    def __init__(
        self, scheme: Scheme, input_scale: "torch.Tensor | None", rounding: Rounding
    ) -> None:
        self.scheme, self.input_scale, self.rounding = scheme, input_scale, rounding
        self.observer: Callable[[torch.Tensor], None] | None = None
        self._rounded: dict[torch.dtype, torch.Tensor] = {}

    @property
    def largest(self) -> float | None:
        """The largest input that the stored scale can hold; None where none is stored."""
        if self.input_scale is None:
            return None
        codes = E4M3_MAX if self.scheme.num_bits == 8 else E4M3_MAX * E2M1_MAX
        return codes * float(self.input_scale)

    def __call__(self, x: "torch.Tensor") -> "torch.Tensor":
        """Quantize and dequantize `x`; gradients pass as if it were not rounded.

        Codes that change with the order are counted where that is asked for.
        """
        if self.observer is not None:
            self.observer(x)
        if x.requires_grad:
            return x + (self._rounding_of(x.detach()) - x.detach())
        return self._rounding_of(x)

    def _rounding_of(self, x: "torch.Tensor") -> "torch.Tensor":
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
        by_itself = (self.scheme.type, self.scheme.num_bits) == ("float", 8)
        if self.input_scale is None or not by_itself or self.scheme.strategy != "tensor":
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


def attach(
    model: Any, layers: Iterable[QuantizedLayer], rounding: Rounding
) -> tuple[dict[str, InputQuantizer], tuple[str, ...]]:
    """Quantize the inputs of a loaded model's quantized layers from now on.

    Args:
        model: Loaded by transformers; it may have renamed and fused the checkpoint's weights.
        layers: The checkpoint's quantized layers.
        rounding: Shared state.

    Returns:
        Parameter name to its quantizer, and the modules of fused experts that offer no place
        for one.

    Raises:
        BackendError: A layer's module was not found.
    """
    quantizers: dict[str, InputQuantizer] = {}
    skipped = []
    experts: dict[str, dict[str, InputQuantizer]] = defaultdict(dict)
    for parameter, group in _by_parameter(model, layers).items():
        quantizer = _quantizer(group, rounding)
        module_name, _, name = parameter.rpartition(".")
        module = model.get_submodule(module_name)
        if name == "weight":
            module.register_forward_pre_hook(quantizer.before)
            quantizers[parameter] = quantizer
        else:
            experts[module_name][name] = quantizer
    for module_name, found in experts.items():
        if _attach_experts(model.get_submodule(module_name), found):
            quantizers |= {f"{module_name}.{name}": q for name, q in found.items()}
        else:
            skipped.append(module_name)
    return quantizers, tuple(skipped)


def _attach_experts(module: Any, quantizers: Mapping[str, InputQuantizer]) -> bool:
    """Quantize both inputs of fused experts; False where the module shows no place for them.

    Source: https://github.com/huggingface/transformers (`integrations/moe.py`): every batched
    implementation passes the first projection's output through `_apply_gate`.
    """
    batched = getattr(getattr(module, "config", None), "_experts_implementation", "eager")
    if batched == "eager" or not getattr(module, "has_gate", False):
        return False
    if set(quantizers) != {"gate_up_proj", "down_proj"}:
        return False
    module.register_forward_pre_hook(quantizers["gate_up_proj"].before)
    apply_gate, down = module._apply_gate, quantizers["down_proj"]
    module._apply_gate = lambda gate_up: down(apply_gate(gate_up))
    return True


def _quantizer(layers: Sequence[QuantizedLayer], rounding: Rounding) -> InputQuantizer:
    """One quantizer for layers that share an input: they take the largest scale.

    Source: vLLM and TensorRT-LLM for fused projections and for experts.
    """
    scheme = layers[0].input_scheme
    assert scheme is not None, "only layers with quantized inputs are grouped"
    import torch

    scales = [
        float(
            decode_float(
                layer.read(Role.INPUT_SCALE), layer.tensors[Role.INPUT_SCALE].dtype, np
            ).max()
        )
        for layer in layers
        if Role.INPUT_SCALE in layer.tensors
    ]
    scale = torch.tensor(np.max(scales), dtype=torch.float32) if scales else None
    if scale is None and scheme.strategy != "token":
        raise BackendError(
            f"{layers[0].name} is quantized as {layers[0].algo} and has no input_scale",
            "Calibrate and export again, or set activations: off in the settings.",
        )
    return InputQuantizer(scheme, scale, rounding)


def _by_parameter(model: Any, layers: Iterable[QuantizedLayer]) -> dict[str, list[QuantizedLayer]]:
    """The model's parameter to the checkpoint's layers that it was made of."""
    names = Names(model)
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    found: dict[str, list[QuantizedLayer]] = defaultdict(list)
    for layer in layers:
        if layer.input_scheme is None:
            continue
        name = layer.tensors[Role.WEIGHT].name
        parameter, _ = names.parameter(name)
        if parameter is not None:
            found[parameter].append(layer)
        elif not any(re.search(pattern, name) for pattern in ignored):
            raise BackendError(
                f"no module of {type(model).__name__} takes the weight {name}",
                "Set activations: off in the settings to measure the weights alone.",
            )
    return found
