"""NVIDIA ModelOpt's unified Hugging Face export (FP8, NVFP4, and mixtures of them).

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`,
`convert_hf_config.py`).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.formats.modelopt_algorithms import algorithm
from gate.formats.modelopt_config import (
    MIXED,
    Exclusions,
    declaration,
    is_modelopt,
    is_modelopt_method,
)
from gate.quantization import (
    FLOAT_DTYPES,
    Declaration,
    QuantizedLayer,
    Role,
    Scheme,
    TensorSpec,
)

SUFFIXES = {
    "weight": Role.WEIGHT,
    "weight_scale": Role.WEIGHT_SCALE,
    "weight_scale_2": Role.WEIGHT_GLOBAL_SCALE,
    "input_scale": Role.INPUT_SCALE,
    "pre_quant_scale": Role.PRE_QUANT_SCALE,
}
STORED_AS = {role: suffix for suffix, role in SUFFIXES.items()}
"""The name under which ModelOpt stores each role."""
KV_SUFFIXES = frozenset({"k_scale", "v_scale", "kv_scale", "k_bias", "v_bias"})

NOT_QUANTIZED = re.compile(
    r"(^|\.)(gate|router|shared_expert_gate|visual|vision_tower|vision_model)(\.|$)"
    r"|(^|[._])(embed\w*|embeddings?|wte|wpe|\w*norm\w*|ln_\w+|conv\w*|rotary\w*)(\.|$)"
)
"""Modules that runtimes keep in high precision whether or not they are excluded."""

SCALAR = ((), (1,))


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
        declared = self._effective(checkpoint)
        excluded = Exclusions(declared.exclude_modules or ())
        other = _other_method(checkpoint)
        for module, tensors in _modules(checkpoint).items():
            algo, group_size = "", None
            if module not in excluded:
                algo, group_size = _declared_for(module, declared)
            marks = tensors.keys() - {Role.WEIGHT} or any(
                info.dtype not in FLOAT_DTYPES for info in tensors.values()
            )
            if other and not algo:
                continue
            if marks or (algo and _is_linear(module, tensors)):
                yield _layer(checkpoint, module, algo, group_size, tensors)

    def is_companion(self, tensor: str) -> bool:
        """Scales, of weights and of the KV cache."""
        suffix = tensor.rpartition(".")[2]
        return (suffix in SUFFIXES and suffix != "weight") or suffix in KV_SUFFIXES

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        known = algorithm(layer.algo)
        if known is None or known.decode is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or 'undeclared'}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        if Role.PRE_QUANT_SCALE in layer.tensors:
            raise UnknownFormatError(
                f"{layer.name} has a pre_quant_scale, which {layer.algo} does not know",
                "Declare the algorithm that smoothed it, and judge it statically with gate lint.",
            )
        return known.decode(layer, xp)

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
    """Module to its tensors, for every module with a weight or a companion."""
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        module, _, suffix = name.rpartition(".")
        if suffix in SUFFIXES:
            modules[module][SUFFIXES[suffix]] = info
    return modules


def _declared_for(module: str, declared: Declaration) -> tuple[str, int | None]:
    """Algorithm ("" for none) and group size of a module that is not excluded."""
    if (declared.quant_algo or "").upper() != MIXED:
        return declared.quant_algo or "", declared.group_size
    layers = declared.quantized_layers or {}
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        entry = layers.get(".".join(parts[:end]))
        if entry is not None:
            size = entry.get("group_size")
            return str(entry.get("quant_algo") or ""), size if type(
                size
            ) is int and size > 0 else None
    return "", None


def _is_linear(module: str, tensors: Mapping[Role, TensorInfo]) -> bool:
    weight = tensors.get(Role.WEIGHT)
    return weight is not None and len(weight.shape) == 2 and not NOT_QUANTIZED.search(module)


def _layer(
    checkpoint: Checkpoint,
    module: str,
    algo: str,
    group_size: int | None,
    tensors: Mapping[Role, TensorInfo],
) -> QuantizedLayer:
    known = algorithm(algo)
    scheme, input_scheme = (known.scheme, known.input_scheme) if known else (None, None)
    if group_size and scheme and scheme.group_size:
        scheme = replace(scheme, group_size=group_size)
    return QuantizedLayer(
        name=module,
        algo=algo,
        scheme=scheme,
        input_scheme=input_scheme,
        tensors=tensors,
        expected=_expected(scheme, input_scheme, tensors.get(Role.WEIGHT)) if scheme else {},
        declared=bool(algo),
        checkpoint=checkpoint,
    )


def _expected(
    scheme: Scheme, input_scheme: Scheme | None, weight: TensorInfo | None
) -> Mapping[Role, TensorSpec]:
    """What a layer of this scheme stores; scale shapes follow from the weight's."""
    packed = frozenset({"U8"} if scheme.num_bits == 4 else {"F8_E4M3"})
    grouped = scheme.strategy == "tensor_group"
    block = frozenset({"F8_E4M3"} if grouped else {"F32"})
    expected = {
        Role.WEIGHT: (packed, None),
        Role.WEIGHT_SCALE: (block, _scale_shapes(scheme, weight)),
    }
    if grouped:
        expected[Role.WEIGHT_GLOBAL_SCALE] = (frozenset({"F32"}), SCALAR)
    if input_scheme and (not input_scheme.dynamic or input_scheme.strategy == "tensor_group"):
        expected[Role.INPUT_SCALE] = (frozenset({"F32"}), SCALAR)
    return {
        role: TensorSpec(dtypes, shapes, STORED_AS[role])
        for role, (dtypes, shapes) in expected.items()
    }


def _scale_shapes(scheme: Scheme, weight: TensorInfo | None) -> tuple[tuple[int, ...], ...] | None:
    if scheme.strategy == "tensor":
        return SCALAR
    if weight is None or len(weight.shape) != 2:
        return None
    rows, columns = weight.shape
    if scheme.strategy == "channel":
        return ((rows,), (rows, 1))
    if scheme.block_structure:
        down, across = (
            -(-rows // scheme.block_structure[0]),
            -(-columns // scheme.block_structure[1]),
        )
        return ((down, 1, across, 1), (down, across))
    assert scheme.group_size, "a grouped scheme has a group size"
    groups, rest = divmod(columns * 2, scheme.group_size)
    # No shape is right where the group does not divide the row.
    return () if rest else ((rows, groups),)
