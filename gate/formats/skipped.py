"""Lists of modules that stay unconverted, and the linear layers that a checkpoint must convert."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from gate.architecture import LAYER, layer_index, template
from gate.checkpoint import TensorInfo
from gate.patterns import MAX_NAME, Exclusions, SkippedModules
from gate.quantization import FLOAT_DTYPES, Role

LINEAR = frozenset({
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3",
    "qkv_proj", "gate_up_proj", "query_key_value", "c_attn", "c_proj", "c_fc", "fc1", "fc2",
})  # fmt: skip
"""Leaf names of layers that every quantizer converts."""

SPECIAL = frozenset("*?[]()\\^$|+")
MAX_WORDS = 64
"""Entries without a dot that are sought inside names: public checkpoints have at most a dozen."""


class Unconverted:
    """A list such as `modules_to_not_convert` or `llm_int8_skip_modules`.

    Runtimes read an entry as a run of the name's parts, as any substring or as a regular
    expression. What all of them leave out is told apart from what some of them may.

    Source: https://github.com/huggingface/transformers (`should_convert_module`) and
    https://github.com/vllm-project/vllm (`is_layer_skipped_awq`, `is_layer_skipped_bnb`).
    """

    def __init__(self, entries: object) -> None:
        found = entries if isinstance(entries, list) else []
        self.names = frozenset(
            name for name in found if isinstance(name, str) and 0 < len(name) <= MAX_NAME
        )

    def surely(self, module: str) -> bool:
        """Whether every reading leaves the module out."""
        return bool(self.names) and module in self._modules

    def perhaps(self, module: str) -> bool:
        """Whether some reading leaves the module out."""
        return bool(self.names) and (
            module in self._modules
            or module in self._below_layer
            or any(word in module for word in self._words)
            or module in self._patterns
        )

    @cached_property
    def _modules(self) -> SkippedModules:
        return SkippedModules(self.names)

    @cached_property
    def _below_layer(self) -> SkippedModules:
        """Entries without what stands before the layer: its name differs between versions."""
        return SkippedModules({_from_layer(name) for name in self.names})

    @cached_property
    def _words(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.names if "." not in name)[:MAX_WORDS])

    @cached_property
    def _patterns(self) -> Exclusions:
        special = [name for name in self.names if not SPECIAL.isdisjoint(name)]
        return Exclusions([*special, *(f"re:{name}.*" for name in special)])


def _from_layer(name: str) -> str:
    found = LAYER.search(f"{name}.")
    return name[found.start() :].removeprefix(".") if found else name


def convertible(
    plain: Mapping[str, TensorInfo], converted: Iterable[str]
) -> Mapping[str, TensorInfo]:
    """Plain linear weights that must be converted as their likes in other layers are.

    No list tells which modules a quantizer converts: heads, routers, vision towers and whatever
    else it passes over are passed over in every layer.

    Args:
        plain: Module to its high-precision weight.
        converted: Modules that are stored quantized.
    """
    kinds = {template(module) for module in converted}
    if not kinds:
        return {
            module: info
            for module, info in plain.items()
            if module.rpartition(".")[2] in LINEAR and layer_index(f"{module}.") is not None
        }
    return {module: info for module, info in plain.items() if template(module) in kinds}


def gather(
    tensors: Mapping[str, TensorInfo], suffixes: Mapping[str, Role]
) -> tuple[dict[str, dict[Role, TensorInfo]], dict[str, TensorInfo]]:
    """Modules that bear marks of quantization, and the plain two-dimensional weights.

    Args:
        tensors: Name to header entry.
        suffixes: Last part of a name to what it is, without the plain `weight`.
    """
    marked: dict[str, dict[Role, TensorInfo]] = {}
    plain: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        module, _, suffix = name.rpartition(".")
        if suffix == "weight":
            if info.dtype in FLOAT_DTYPES and len(info.shape) == 2:
                plain[module] = info
        elif suffix in suffixes:
            marked.setdefault(module, {})[suffixes[suffix]] = info
    for module in marked.keys() & plain.keys():
        del plain[module]
    return marked, plain
