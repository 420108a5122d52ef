"""compressed-tensors, the format of llm-compressor.

Source: https://github.com/vllm-project/compressed-tensors
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from gate.architecture import NOT_QUANTIZED
from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.formats.compressed_tensors_config import METHOD, Config, Group, declared, read
from gate.formats.compressed_tensors_decoders import decode, decodes
from gate.formats.compressed_tensors_targets import Targets, spellings
from gate.quantization import FLOAT_DTYPES, Declaration, QuantizedLayer, Role

SUFFIXES = {
    "weight": Role.WEIGHT,
    "weight_packed": Role.WEIGHT,
    "weight_scale": Role.WEIGHT_SCALE,
    "weight_global_scale": Role.WEIGHT_GLOBAL_DIVISOR,
    "weight_zero_point": Role.WEIGHT_ZERO_POINT,
    "weight_g_idx": Role.WEIGHT_G_IDX,
    "weight_shape": Role.WEIGHT_SHAPE,
    "input_scale": Role.INPUT_SCALE,
    "input_global_scale": Role.INPUT_GLOBAL_DIVISOR,
    "input_zero_point": Role.INPUT_ZERO_POINT,
}
SPARSE = {"compressed": Role.WEIGHT, "shape": Role.WEIGHT_SHAPE}
"""Stored below the weight's own name by the sparse formats."""
SPARSE_COMPANIONS = frozenset({"shape", "bitmask", "row_offsets"})
COMPANIONS = (SUFFIXES.keys() - {"weight", "weight_packed"}) | {
    f"{of}_{what}"
    for of in ("output", "k", "v", "q")
    for what in ("scale", "zero_point", "global_scale")
}


class CompressedTensors:
    """The format of checkpoints that llm-compressor exports."""

    name = METHOD

    def matches(self, checkpoint: Checkpoint) -> bool:
        """See `Format.matches`; also by the declaration's older name `compression_config`."""
        return declared(checkpoint) is not None

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """The KV cache, and names that do not exist: nothing else is like ModelOpt's."""
        config = _config(checkpoint)
        return (
            Declaration(
                file="config.json",
                quant_algo=None,
                kv_cache_quant_algo=config.kv_cache,
                group_size=None,
                exclude_modules=None,
                quantized_layers=None,
                unknown=config.unknown,
            ),
        )

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Every group's storage, and rotations of what flows between the layers.

        What an expression names that is not evaluated cannot be told, so it is not decoded.
        """
        config = _config(checkpoint)
        known = {
            group.algo: group.layout is not None
            and decodes(group.layout.scheme)
            and not Targets(group.targets).refused
            for group in config.groups
            if group.quantizes
        }
        rotated = {f"{METHOD} with transforms": False} if config.transformed else {}
        return known | rotated or {METHOD: False}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """See `Format.weight_bits`."""
        groups = _config(checkpoint).groups
        return min((group.num_bits for group in groups if group.num_bits), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        assignment = _Assignment(_config(checkpoint), checkpoint)
        for module, tensors in _modules(checkpoint).items():
            marked = len(tensors) > 1 or any(
                role is not Role.WEIGHT or info.dtype not in FLOAT_DTYPES
                for role, info in tensors.items()
            )
            if marked or _is_linear(module, tensors):
                group = assignment.group(module, marked)
                if marked or group is not None:
                    yield _layer(checkpoint, module, group, tensors)

    def is_companion(self, tensor: str) -> bool:
        """See `Format.is_companion`."""
        module, _, suffix = tensor.rpartition(".")
        return suffix in COMPANIONS or (suffix in SPARSE_COMPANIONS and module.endswith(".weight"))

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        if layer.scheme is None or not decodes(layer.scheme):
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or METHOD}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        return decode(layer, layer.scheme, xp)


def _config(checkpoint: Checkpoint) -> Config:
    return read(*(declared(checkpoint) or ({}, "")))


class _Assignment:
    """Which group a module belongs to."""

    def __init__(self, config: Config, checkpoint: Checkpoint) -> None:
        groups = [group for group in config.groups if group.quantizes]
        self._named = [(Targets(group.targets), group) for group in groups]
        self._ignore = Targets(config.ignore)
        self._multimodal = "text_config" in checkpoint.config
        self._classes: dict[str, Group] = {}
        for targets, group in self._named:
            for name in sorted(targets.classes):
                self._classes.setdefault(name, group)
        refused = [group for targets, group in self._named if targets.refused]
        self._doubtful = _undescribed(refused[0]) if refused else None

    def group(self, module: str, marked: bool) -> Group | None:
        """None where the module is ignored or no target names it.

        Names come before classes. What only a class that no name betrays, or an expression that
        cannot be used, may name is believed where the module is `marked` as quantized.
        """
        names = spellings(module, self._multimodal)
        if self._ignore.name_any(names) or "Linear" in self._ignore.classes:
            return None
        if self._ignore.refused and not marked:
            return None
        for targets, group in self._named:
            if targets.name_any(names):
                return group
        if marked and self._doubtful is not None:
            return self._doubtful
        kind = "Embedding" if _is_embedding(module) else "Linear"
        found = self._classes.get(kind)
        return next(iter(self._classes.values()), None) if marked and found is None else found


def _undescribed(group: Group) -> Group:
    return Group(f"{group.algo} by expression", group.targets, None, group.num_bits, True)


def _modules(checkpoint: Checkpoint) -> Mapping[str, dict[Role, TensorInfo]]:
    """Module to its tensors; a packed weight goes before one that lies beside it."""
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        module, _, suffix = name.rpartition(".")
        role = SUFFIXES.get(suffix)
        if role is None and suffix in SPARSE and module.endswith(".weight"):
            module, role = module.removesuffix(".weight"), SPARSE[suffix]
        if role is not None and not (suffix == "weight" and role in modules.get(module, ())):
            modules[module][role] = info
    return modules


def _is_embedding(module: str) -> bool:
    return "embed" in module.rpartition(".")[2]


def _is_linear(module: str, tensors: Mapping[Role, TensorInfo]) -> bool:
    weight = tensors.get(Role.WEIGHT)
    return weight is not None and len(weight.shape) == 2 and not NOT_QUANTIZED.search(module)


def _layer(
    checkpoint: Checkpoint,
    module: str,
    group: Group | None,
    tensors: dict[Role, TensorInfo],
) -> QuantizedLayer:
    layout = group.layout if group else None
    weight = tensors.get(Role.WEIGHT)
    packed = weight is not None and weight.dtype not in FLOAT_DTYPES and len(tensors) > 1
    if layout and packed and weight and weight.name != f"{module}.{layout.weight_name}":
        # Under another name it is not loaded, so it counts as missing.
        tensors = {role: info for role, info in tensors.items() if role is not Role.WEIGHT}
    return QuantizedLayer(
        name=module,
        algo=group.algo if group else "",
        scheme=layout.scheme if layout else None,
        # An embedding is given tokens, whatever its group says of activations.
        input_scheme=layout.input_scheme if layout and not _is_embedding(module) else None,
        tensors=tensors,
        expected=layout.expected(tensors) if layout else {},
        declared=group is not None,
        checkpoint=checkpoint,
        shape=layout.shape(tensors) if layout else None,
    )
