"""optimum-quanto's own checkpoints.

Source: https://github.com/huggingface/optimum-quanto (`tensor/weights/`, `quantize.py`,
`models/transformers_models.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gate.architecture import Architecture, architecture
from gate.checkpoint import Checkpoint, Problem, TensorInfo
from gate.checkpoint.files import read_json
from gate.errors import UnknownFormatError
from gate.formats.quanto_decoders import decode
from gate.formats.skipped import Unconverted, convertible
from gate.quantization import (
    FLOAT_DTYPES,
    Declaration,
    QuantizedLayer,
    Role,
    Scheme,
    TensorSpec,
)

MAP_FILE = "quanto_qmap.json"
"""Module to its types, which quanto writes instead of a declaration in config.json."""
SUFFIXES = {
    "weight": Role.WEIGHT,
    "weight._data": Role.WEIGHT,
    "weight._data._data": Role.WEIGHT,
    "weight._scale": Role.WEIGHT_SCALE,
    "weight._shift": Role.WEIGHT_ZERO_POINT,
    "input_scale": Role.INPUT_SCALE,
}
COMPANIONS = frozenset({"_scale", "_shift", "input_scale", "output_scale"})
FLOATS = frozenset({"BF16", "F16", "F32"})
FROM_HIDDEN = frozenset({"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head"})
"""Leaf names of layers that read the residual stream."""


@dataclass(frozen=True)
class _Stored:
    """Attributes: dtype of the elements, and how many weights one of them holds."""

    scheme: Scheme
    dtype: str
    name: str
    per_element: int = 1


_INT8 = _Stored(Scheme(8, "int", "channel"), "I8", "weight._data")
_E4M3 = _Stored(Scheme(8, "float", "channel"), "F8_E4M3", "weight._data")
_INT4, _INT2 = (
    _Stored(Scheme(bits, "int", "group", symmetric=False), "U8", "weight._data._data", 8 // bits)
    for bits in (4, 2)
)
TYPES: Mapping[str, _Stored] = {
    "int8": _INT8,
    "int4": _INT4,
    "int2": _INT2,
    "float8": _E4M3,
    "float8_e4m3fn": _E4M3,
    "float8_e5m2": _Stored(Scheme(8, "float", "channel"), "F8_E5M2", "weight._data"),
}
"""By the type's name without quanto's `q` before it; groups have up to 128 weights."""
ACTIVATIONS = frozenset({"none", "int8", "float8", "float8_e4m3fn", "float8_e5m2"})


class Quanto:
    """The format of checkpoints that quanto saved."""

    name = "quanto"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """A declaration in config.json, or quanto's own file where there is none."""
        declared = checkpoint.quantization_config
        if declared is not None:
            return declared.get("quant_method") == self.name
        return MAP_FILE in checkpoint.files and checkpoint.hf_quant_config is None

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """The types that do not exist; the rest has no likeness to ModelOpt's declarations."""
        found = []
        config = checkpoint.quantization_config
        if config is not None:
            unknown = dict(_unknown(config, checkpoint.quantization_pointer))
            found.append(Declaration("config.json", None, None, None, None, None, unknown))
        unknown = {
            pointer: value
            for module, entry in (_map(checkpoint) or {}).items()
            for pointer, value in _unknown(
                entry, f"/{module.replace('~', '~0').replace('/', '~1')}"
            )
        }
        if unknown:
            found.append(Declaration(MAP_FILE, None, None, None, None, None, unknown))
        return tuple(found)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Every type of weights, and of what flows between layers, which is not emulated."""
        weights = {name: name.removeprefix("q") in TYPES for name in _types(checkpoint, "weights")}
        rounded = _types(checkpoint, "activations")
        return weights | {f"activations as {name}": False for name in rounded} or {self.name: False}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """See `Format.weight_bits`."""
        known = (TYPES.get(name.removeprefix("q")) for name in _types(checkpoint, "weights"))
        return min((stored.scheme.num_bits for stored in known if stored), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        by_module = _map(checkpoint)
        config = checkpoint.quantization_config or {}
        skipped = Unconverted(config.get("modules_to_not_convert"))
        figures = architecture(checkpoint)
        default = config.get("weights", "int8")
        marked, plain = _modules(checkpoint)
        for module, tensors in marked.items():
            algo = _named(by_module, module, default, kept=skipped.surely(module))
            yield _layer(checkpoint, module, algo, tensors, figures)
        must = convertible(plain, marked) if by_module is None else plain
        for module, info in must.items():
            algo = _named(by_module, module, default, kept=skipped.perhaps(module))
            if algo:
                yield _layer(checkpoint, module, algo, {Role.WEIGHT: info}, figures)

    def is_companion(self, tensor: str) -> bool:
        """See `Format.is_companion`."""
        return tensor.rpartition(".")[2] in COMPANIONS

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        scheme = layer.scheme
        if scheme is None or layer.shape is None:
            why = "has no decoder" if scheme is None else "needs a shape that nothing tells"
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or self.name}, which {why}",
                "Judge it statically with gate lint.",
            )
        return decode(layer, scheme, xp)


def _map(checkpoint: Checkpoint) -> Mapping[str, Mapping[str, Any]] | None:
    """What quanto's own file says; None where there is none, or none that can be read."""
    problems: list[Problem] = []
    found = read_json(checkpoint.store, MAP_FILE, "quant-config-unreadable", problems)
    if found is None:
        return None
    return {module: entry for module, entry in found.items() if isinstance(entry, Mapping)}


def _types(checkpoint: Checkpoint, of: str) -> list[str]:
    """Every declared type of `weights` or of `activations`, sorted."""
    entries = [entry.get(of) for entry in (_map(checkpoint) or {}).values()]
    config = checkpoint.quantization_config
    if config is not None and not entries:
        entries = [config.get(of, "int8" if of == "weights" else None)]
    return sorted({entry for entry in entries if isinstance(entry, str)} - {"none"})


def _named(
    by_module: Mapping[str, Mapping[str, Any]] | None, module: str, default: object, *, kept: bool
) -> str:
    """The type of a module's weights; "" where it is not to be quantized."""
    if by_module is not None:
        default = by_module.get(module, {}).get("weights")
    elif kept:
        return ""
    return default if isinstance(default, str) and default != "none" else ""


def _unknown(entry: Mapping[str, Any], pointer: str) -> Iterator[tuple[str, str]]:
    for field, names in (("weights", TYPES.keys() | {"none"}), ("activations", ACTIVATIONS)):
        value = entry.get(field)
        if isinstance(value, str) and value.removeprefix("q") not in names:
            yield f"{pointer}/{field}", value


def _modules(
    checkpoint: Checkpoint,
) -> tuple[Mapping[str, dict[Role, TensorInfo]], Mapping[str, TensorInfo]]:
    """Modules with a quantized weight, and the plain two-dimensional weights.

    A norm may have scales of its input and output alone: that is no mark.
    """
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        if "._" in name:
            module, _, suffix = name.partition(".weight._")
            suffix = f"weight._{suffix}"
        else:
            module, _, suffix = name.rpartition(".")
        if suffix in SUFFIXES:
            modules[module][SUFFIXES[suffix]] = info
    marked, plain = {}, {}
    for module, tensors in modules.items():
        weight = tensors.get(Role.WEIGHT)
        if weight is not None and weight.dtype in FLOAT_DTYPES and len(weight.shape) == 2:
            plain[module] = weight
        if tensors.keys() & {Role.WEIGHT_SCALE, Role.WEIGHT_ZERO_POINT} or (
            weight is not None and weight.dtype not in FLOAT_DTYPES
        ):
            marked[module] = tensors
    return marked, {module: info for module, info in plain.items() if module not in marked}


def _layer(
    checkpoint: Checkpoint,
    module: str,
    algo: str,
    tensors: Mapping[Role, TensorInfo],
    figures: Architecture,
) -> QuantizedLayer:
    stored = TYPES.get(algo.removeprefix("q"))
    weight, scale = tensors.get(Role.WEIGHT), tensors.get(Role.WEIGHT_SCALE)
    shape = weight.shape if weight else None
    if stored and stored.per_element > 1 and shape:
        shape = _shape(module, shape, scale.shape if scale else (), figures)
    return QuantizedLayer(
        name=module,
        algo=algo,
        scheme=stored.scheme if stored else None,
        input_scheme=None,
        tensors=tensors,
        expected=_expected(stored, weight.shape if weight else ()) if stored else {},
        declared=bool(algo),
        checkpoint=checkpoint,
        shape=shape,
    )


def _shape(
    module: str, weight: tuple[int, ...], scale: tuple[int, ...], figures: Architecture
) -> tuple[int, int] | None:
    """The rows of packed weights are groups: config.json has to tell how many make a row."""
    heads, width = figures.attention_heads, figures.head_dim
    leaf = module.rpartition(".")[2]
    columns = figures.hidden if leaf in FROM_HIDDEN else None
    if leaf == "o_proj" and heads and width:
        columns = heads * width
    elif leaf == "down_proj":
        columns = figures.number("intermediate_size")
    if not columns or len(weight) != 2 or len(scale) != 2 or weight[1] != _group_size(columns):
        return None
    rows, rest = divmod(scale[0] * weight[1], columns)
    return None if rest else (rows, columns)


def _group_size(columns: int) -> int:
    """Weights that share a scale: the whole row where it does not divide.

    Source: https://github.com/huggingface/optimum-quanto (`nn/qmodule.py`).
    """
    sizes = (size for size in (128, 96, 64, 32) if columns > 128 and columns % size == 0)
    return next(sizes, columns)


@lru_cache(maxsize=1 << 10)
def _expected(stored: _Stored, weight: tuple[int, ...]) -> Mapping[Role, TensorSpec]:
    """Packed weights lie in rows of one group each, several rows in one byte."""
    shapes: tuple[tuple[int, ...], ...] | None = None
    if len(weight) > 1 and stored.per_element == 1:
        shapes = ((weight[0], *(1 for _ in weight[1:])), ())
    elif len(weight) == 2:
        last = weight[0] * stored.per_element
        shapes = tuple((last - fewer, 1) for fewer in range(stored.per_element))
    scale = TensorSpec(FLOATS, shapes, "weight._scale")
    specs = {
        Role.WEIGHT: TensorSpec(frozenset({stored.dtype}), None, stored.name),
        Role.WEIGHT_SCALE: scale,
        Role.INPUT_SCALE: TensorSpec(FLOATS, ((), (1,)), "input_scale", optional=True),
    }
    if not stored.scheme.symmetric:
        specs[Role.WEIGHT_ZERO_POINT] = TensorSpec(FLOATS, shapes, "weight._shift")
    return specs
