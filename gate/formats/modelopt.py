"""NVIDIA ModelOpt's unified Hugging Face export (FP8, NVFP4, and mixtures of them).

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`,
`convert_hf_config.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gate.architecture import NOT_QUANTIZED
from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.formats.decoding import require_as_described
from gate.formats.modelopt_algorithms import algorithm
from gate.formats.modelopt_config import (
    Modules,
    declaration,
    is_modelopt,
    is_modelopt_method,
)
from gate.formats.modelopt_decoders import unsmoothed
from gate.formats.modelopt_layouts import STORED_AS, describe
from gate.quantization import FLOAT_DTYPES, MIXED, Declaration, QuantizedLayer, Role

SUFFIXES = {
    suffix: role for role, suffix in STORED_AS.items() if role not in {Role.LORA_A, Role.LORA_B}
}
LOW_RANK = {
    f"{prefix}svdquant_lora_{factor}": role
    for prefix in ("", "_")
    for factor, role in (("a", Role.LORA_A), ("b", Role.LORA_B))
}
"""Buffers that ModelOpt stores under the weight's quantizer, or under the module itself."""

EXPERTS = {
    leaf if role is Role.WEIGHT else f"{leaf}_{suffix}": (leaf, role)
    for leaf in ("gate_up_proj", "down_proj", "gate_proj", "up_proj")
    for suffix, role in SUFFIXES.items()
}
"""Tensors directly below `experts`, each holding all of them, to the weight's name and the role."""

KV_SUFFIXES = frozenset({"k_scale", "v_scale", "kv_scale", "k_bias", "v_bias"})
COMPANIONS = (
    KV_SUFFIXES
    | LOW_RANK.keys()
    | {suffix for suffix, role in SUFFIXES.items() if role is not Role.WEIGHT}
    | {suffix for suffix, (_, role) in EXPERTS.items() if role is not Role.WEIGHT}
)


class ModelOpt:
    """The format of checkpoints with a ModelOpt declaration."""

    name = "modelopt"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """A ModelOpt declaration that quantizes something."""
        return any(found.quant_algo for found in self.declarations(checkpoint))

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """What config.json and hf_quant_config.json declare, in the order runtimes read them.

        Source: vLLM and SGLang prefer config.json, TensorRT-LLM hf_quant_config.json.
        """
        found = []
        in_config = checkpoint.quantization_config
        if in_config is not None and is_modelopt(in_config):
            found.append(declaration("config.json", in_config, checkpoint.quantization_pointer))
        if checkpoint.hf_quant_config is not None:
            found.append(declaration("hf_quant_config.json", checkpoint.hf_quant_config, ""))
        return tuple(found)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Declared algorithms, per layer where mixed, and whether each can be decoded.

        Another method that config.json declares for the other layers is one of them.
        """
        declared = self._effective(checkpoint)
        names = {declared.quant_algo or ""}
        if declared.quant_algo and declared.quant_algo.upper() == MIXED:
            layers = declared.quantized_layers or {}
            names = {
                algo
                for entry in layers.values()
                if isinstance(algo := entry.get("quant_algo"), str)
            }
        known = {name: algorithm(name) for name in sorted(names)}
        found = {name: algo is not None and algo.decode is not None for name, algo in known.items()}
        other = _other_method(checkpoint)
        return found | ({other: False} if other else {})

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The lowest declared weight width in bits."""
        found = [algorithm(name) for name in self.algorithms(checkpoint)]
        return min((algo.weight_bits for algo in found if algo), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        declared = Modules(self._effective(checkpoint))
        other = _other_method(checkpoint)
        for module, tensors in _modules(checkpoint).items():
            algo, group_size = declared.of(module)
            if other and not algo:
                continue
            marks = len(tensors) > (Role.WEIGHT in tensors) or any(
                info.dtype not in FLOAT_DTYPES for info in tensors.values()
            )
            if marks or (algo and _is_linear(module, tensors)):
                yield _layer(checkpoint, module, algo, group_size, tensors)

    def is_companion(self, tensor: str) -> bool:
        """Scales of weights, inputs and the KV cache, offsets of that, and low-rank factors."""
        return tensor.rpartition(".")[2] in COMPANIONS

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        known = algorithm(layer.algo)
        if known is None or known.decode is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or 'undeclared'}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        for role in (Role.PRE_QUANT_SCALE, Role.LORA_A, Role.LORA_B):
            if role in layer.tensors and role not in layer.expected:
                raise UnknownFormatError(
                    f"{layer.name} has a {role}, which {layer.algo} does not know",
                    "Declare the algorithm that smoothed it, and judge it statically with "
                    "gate lint.",
                )
        if layer.shape is None or layer.expected[Role.WEIGHT_SCALE].shapes is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo} in a shape that has no decoder",
                "Judge it statically with gate lint.",
            )
        # An input's scale is not needed for the weight.
        needed = dict(layer.expected)
        needed.pop(Role.INPUT_SCALE, None)
        require_as_described(replace(layer, expected=needed))
        return unsmoothed(layer, known.decode(layer, xp), xp)

    def _effective(self, checkpoint: Checkpoint) -> Declaration:
        """The declaration that runtimes act on: the first file, gaps filled from the second."""
        first, *rest = (found for found in self.declarations(checkpoint) if found.quant_algo)
        for other in rest:
            exclude = first.exclude_modules
            first = replace(
                first,
                group_size=first.group_size or other.group_size,
                exclude_modules=other.exclude_modules if exclude is None else exclude,
                quantized_layers=first.quantized_layers or other.quantized_layers,
            )
        return first


def _other_method(checkpoint: Checkpoint) -> str | None:
    """The method that config.json names for layers outside ModelOpt's declaration."""
    method = (checkpoint.quantization_config or {}).get("quant_method")
    return None if method is None or is_modelopt_method(method) else str(method)


def _modules(checkpoint: Checkpoint) -> Mapping[str, dict[Role, TensorInfo]]:
    """Module to its tensors, for every module with a weight or a companion.

    A tensor that holds all experts counts as a module of its own.
    """
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        module, _, suffix = name.rpartition(".")
        if suffix in SUFFIXES:
            modules[module][SUFFIXES[suffix]] = info
        elif suffix in EXPERTS and module.rpartition(".")[2] == "experts":
            leaf, role = EXPERTS[suffix]
            modules[f"{module}.{leaf}"][role] = info
        elif suffix in LOW_RANK:
            modules[module.removesuffix(".weight_quantizer")][LOW_RANK[suffix]] = info
    return modules


def _is_linear(module: str, tensors: Mapping[Role, TensorInfo]) -> bool:
    weight = tensors.get(Role.WEIGHT)
    if weight is None:
        return False
    sides = 3 if weight.name == module else 2
    return len(weight.shape) == sides and not NOT_QUANTIZED.search(module)


def _layer(
    checkpoint: Checkpoint,
    module: str,
    algo: str,
    group_size: int | None,
    tensors: Mapping[Role, TensorInfo],
) -> QuantizedLayer:
    weight = tensors.get(Role.WEIGHT)
    ranks: tuple[int | None, int | None] = (None, None)
    if Role.LORA_A in tensors and Role.LORA_B in tensors:
        down, up = tensors[Role.LORA_A].shape, tensors[Role.LORA_B].shape
        ranks = (up[-1] if up else None, down[0] if down else None)
    found = describe(
        algo,
        group_size,
        weight.dtype if weight else "",
        weight.shape if weight else (),
        not next(iter(tensors.values())).name.startswith(f"{module}."),
        ranks,
    )
    return QuantizedLayer(
        name=module,
        algo=algo,
        scheme=found.scheme,
        input_scheme=found.input_scheme,
        tensors=tensors,
        expected=found.expected,
        declared=bool(algo),
        checkpoint=checkpoint,
        shape=found.shape,
        transposed=len(found.shape or ()) == 3,
    )
