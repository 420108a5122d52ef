"""Quantized inputs of linear layers and of fused experts, by hooks on a loaded model."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gate.activations import implemented, named
from gate.backends.hf_names import Names
from gate.backends.hf_rounding import InputQuantizer, LowRank, Rounding
from gate.codes import decode_float
from gate.errors import BackendError
from gate.quantization import QuantizedLayer, Role

OFF = "Set activations: off in the settings to measure the weights alone."


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
    import torch

    quantizers: dict[str, InputQuantizer] = {}
    skipped = []
    experts: dict[str, dict[str, InputQuantizer | None]] = defaultdict(dict)
    for parameter, group in _by_parameter(model, layers).items():
        quantizer = _quantizer(group, rounding)
        module_name, _, name = parameter.rpartition(".")
        if name != "weight":
            experts[module_name][name] = quantizer
            continue
        if quantizer is None:
            raise BackendError(
                f"{parameter} is made of layers that quantize the input that they share in "
                f"different ways: {', '.join(layer.name for layer in group)}",
                OFF,
            )
        module = model.get_submodule(module_name)
        if Role.LORA_A in group[0].tensors:
            down, up = (_factors(group[0], role) for role in (Role.LORA_A, Role.LORA_B))
            LowRank(torch.from_numpy(down), torch.from_numpy(up), quantizer).attach(module)
        else:
            module.register_forward_pre_hook(quantizer.before)
        quantizers[parameter] = quantizer
    for module_name, found in experts.items():
        known = {name: quantizer for name, quantizer in found.items() if quantizer is not None}
        if _attach_experts(model.get_submodule(module_name), known):
            quantizers |= {f"{module_name}.{name}": q for name, q in known.items()}
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


def _quantizer(layers: Sequence[QuantizedLayer], rounding: Rounding) -> InputQuantizer | None:
    """One quantizer for layers that share an input: they take the largest scale.

    None where they round or smooth it in different ways, or multiply it unrounded too.

    Source: vLLM and TensorRT-LLM for fused projections and for experts.
    """
    scheme = layers[0].input_scheme
    assert scheme is not None, "only layers with quantized inputs are grouped"
    import torch

    if not implemented(scheme):
        kind = named(scheme) if scheme.symmetric else f"asymmetric {named(scheme)}"
        raise BackendError(
            f"{layers[0].name} quantizes its input to {kind} by {scheme.strategy}, which is not "
            "emulated",
            OFF,
        )
    scales = [found for layer in layers if (found := _input_scale(layer)) is not None]
    if not scales and (scheme.strategy == "tensor_group" or not scheme.dynamic):
        raise BackendError(
            f"{layers[0].name} is quantized as {layers[0].algo} and has no input_scale",
            "Calibrate and export again, or set activations: off in the settings.",
        )
    factors = [_factors(layer, Role.PRE_QUANT_SCALE) for layer in layers]
    ways = {
        (layer.input_scheme, None if found is None else found.tobytes())
        for layer, found in zip(layers, factors, strict=True)
    }
    if len(ways) > 1 or (len(layers) > 1 and any(Role.LORA_A in each.tensors for each in layers)):
        return None
    return InputQuantizer(
        scheme,
        torch.tensor(np.max(scales), dtype=torch.float32) if scales else None,
        rounding,
        None if factors[0] is None else torch.from_numpy(factors[0]),
    )


def _input_scale(layer: QuantizedLayer) -> float | None:
    """The stored scale of a layer's input; None where none is stored."""
    found = _factors(layer, Role.INPUT_SCALE)
    if found is None:
        divisor = _factors(layer, Role.INPUT_GLOBAL_DIVISOR)
        found = None if divisor is None else 1 / divisor
    return None if found is None else float(found.max())


def _factors(layer: QuantizedLayer, role: Role) -> np.ndarray | None:
    """A stored tensor's values, float32; None where there is none."""
    if role not in layer.tensors:
        return None
    found: np.ndarray = decode_float(layer.read(role), layer.tensors[role].dtype, np)
    return found


def _by_parameter(model: Any, layers: Iterable[QuantizedLayer]) -> dict[str, list[QuantizedLayer]]:
    """The model's parameter to the checkpoint's layers that it was made of."""
    names = Names(model)
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    found: dict[str, list[QuantizedLayer]] = defaultdict(list)
    for layer in layers:
        if layer.input_scheme is None:
            continue
        name = layer.parameter
        parameter, _ = names.parameter(name)
        if parameter is not None:
            found[parameter].append(layer)
        elif not any(re.search(pattern, name) for pattern in ignored):
            raise BackendError(
                f"no module of {type(model).__name__} takes the weight {name}",
                OFF,
            )
    return found
