"""MLX: integers packed along the inputs, with a scale and a bias for each group.

Source: https://github.com/ml-explore/mlx (`mlx.core.quantize`) and
https://github.com/ml-explore/mlx-lm (`utils.py`, `load_model`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import E2M1, decode_float, lookup, unpack
from gate.errors import UnknownFormatError
from gate.formats.decoding import require_as_described, rounded
from gate.formats.skipped import gather
from gate.quantization import Declaration, QuantizedLayer, Role, Scheme, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = {"scales": Role.WEIGHT_SCALE, "biases": Role.WEIGHT_ZERO_POINT}
"""The bias is the zero point's place, as a value and not as a code."""

FLOATS = frozenset({"F16", "BF16", "F32"})
WIDTHS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class _Mode:
    """How one module is quantized; None for what cannot be told."""

    name: str
    bits: int | None
    group_size: int | None

    @cached_property
    def label(self) -> str:
        return f"MLX {self.name} W{self.bits or '?'} g{self.group_size or '?'}"

    @cached_property
    def scheme(self) -> Scheme | None:
        if self.name == "affine" and self.bits in WIDTHS and self.group_size:
            return Scheme(
                self.bits,
                "int",
                "group",
                group_size=self.group_size,
                symmetric=False,
            )
        if (self.name, self.bits, self.group_size) == ("mxfp4", 4, 32):
            return Scheme(4, "float", "group", group_size=32)
        return None


class MLX:
    """The format of checkpoints that mlx-lm and mlx-vlm quantized."""

    name = "mlx"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """`quantization` in config.json, which states a group size and a width."""
        declared = checkpoint.quantization_config or {}
        return "quant_method" not in declared and _declared(checkpoint) is not None

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """What config.json declares; quantization_config repeats it."""
        default = _default(checkpoint)
        return (Declaration("config.json", default.label, None, default.group_size, None, None),)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Mode, width and group of every module's quantization."""
        default = _default(checkpoint)
        own = _own(checkpoint, default).values()
        modes = [mode for mode in dict.fromkeys([default, *own]) if mode]
        return {mode.label: mode.scheme is not None for mode in modes}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The lowest declared weight width in bits."""
        default = _default(checkpoint)
        modes = [default, *_own(checkpoint, default).values()]
        return min((mode.bits for mode in modes if mode and mode.bits), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """Every module with scales: that is how MLX itself tells the quantized ones."""
        default = _default(checkpoint)
        own = _own(checkpoint, default)
        marked, _ = gather(checkpoint.tensors, SUFFIXES)
        for name, info in checkpoint.tensors.items():
            if info.dtype == "U32" and name.endswith(".weight"):
                marked.setdefault(name.removesuffix(".weight"), {})[Role.WEIGHT] = info
        for module, tensors in marked.items():
            yield _layer(checkpoint, module, own.get(module, default), tensors)

    def is_companion(self, tensor: str) -> bool:
        """Scales and biases of groups."""
        return tensor.rpartition(".")[2] in SUFFIXES

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        scheme, shape = layer.scheme, layer.shape
        if scheme is None or shape is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or self.name}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        require_as_described(layer)
        codes = unpack(layer.read(Role.WEIGHT), scheme.num_bits, shape[-1])
        return xp.asarray(_scaled(layer, scheme, codes).reshape(shape))


def _scaled(layer: QuantizedLayer, scheme: Scheme, codes: "np.ndarray") -> "np.ndarray":
    """Code * scale + bias of each group, computed as the library does: in the scale's dtype."""
    import numpy as np

    values = lookup(E2M1, codes, np) if scheme.type == "float" else codes.astype(np.float32)
    info = layer.tensors[Role.WEIGHT_SCALE]
    scale = decode_float(layer.read(Role.WEIGHT_SCALE), info.dtype, np)[..., None]
    groups: np.ndarray = values.reshape((*info.shape, -1))
    with np.errstate(over="ignore", invalid="ignore"):  # as in `decoding.apply`
        groups *= scale
        if Role.WEIGHT_ZERO_POINT in layer.tensors:
            bias = layer.tensors[Role.WEIGHT_ZERO_POINT].dtype
            groups = rounded(groups, info.dtype)
            groups += decode_float(layer.read(Role.WEIGHT_ZERO_POINT), bias, np)[..., None]
    return groups


def _declared(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    found = checkpoint.config.get("quantization")
    if isinstance(found, Mapping) and {"group_size", "bits"} <= found.keys():
        return found
    return None


def _default(checkpoint: Checkpoint) -> _Mode:
    return _mode(_declared(checkpoint) or {}, _Mode("affine", None, None))


def _own(checkpoint: Checkpoint, default: _Mode) -> Mapping[str, _Mode | None]:
    """Module to what is declared for it alone; None where it is left out."""
    return {
        module: _mode(value, default) if isinstance(value, Mapping) else None
        for module, value in (_declared(checkpoint) or {}).items()
        if isinstance(value, Mapping) or value is False
    }


def _mode(values: Mapping[str, Any], default: _Mode) -> _Mode:
    name = values.get("mode", default.name)
    bits, size = values.get("bits", default.bits), values.get("group_size", default.group_size)
    return _Mode(str(name)[:20], _size(bits), _size(size))


def _size(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


def _layer(
    checkpoint: Checkpoint, module: str, mode: _Mode | None, tensors: Mapping[Role, TensorInfo]
) -> QuantizedLayer:
    weight = tensors.get(Role.WEIGHT)
    shape: tuple[int, ...] | None = None
    expected: Mapping[Role, TensorSpec] = {}
    if mode and mode.scheme and weight is not None and len(weight.shape) >= 2:
        shape, expected = _describe(mode, weight.shape)
    if mode is None or mode.scheme is None:
        # Bytes may hold another float than the one that a scheme would tell.
        tensors = {role: info for role, info in tensors.items() if info.dtype != "U8"}
    return QuantizedLayer(
        name=module,
        algo=mode.label if mode else "",
        scheme=mode.scheme if mode else None,
        input_scheme=None,
        tensors=tensors,
        expected=expected,
        declared=mode is not None,
        checkpoint=checkpoint,
        shape=shape,
    )


@lru_cache(maxsize=4096)
def _describe(
    mode: _Mode, weight: tuple[int, ...]
) -> tuple[tuple[int, ...], Mapping[Role, TensorSpec]]:
    """The weight's logical shape, and what stands beside it."""
    assert mode.bits and mode.group_size, "a described mode has both"
    inputs = weight[-1] * 32 // mode.bits
    groups, rest = divmod(inputs, mode.group_size)
    shapes = () if rest else ((*weight[:-1], groups),)
    affine = mode.name == "affine"
    expected = {
        Role.WEIGHT: TensorSpec(frozenset({"U32"}), stored_as="weight"),
        Role.WEIGHT_SCALE: TensorSpec(FLOATS if affine else frozenset({"U8"}), shapes, "scales"),
    }
    if affine:
        expected[Role.WEIGHT_ZERO_POINT] = TensorSpec(FLOATS, shapes, "biases")
    return (*weight[:-1], inputs), expected
