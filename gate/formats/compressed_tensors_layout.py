"""How compressed-tensors stores a layer of each format.

Source: https://github.com/vllm-project/compressed-tensors (`compressors/`,
`quantization/lifecycle/initialize.py`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gate.checkpoint import TensorInfo
from gate.quantization import Role, Scheme, TensorSpec

Shape = tuple[int, ...]

FLOATS = frozenset({"BF16", "F16", "F32"})
E8M0 = frozenset({"U8", "F8_E8M0"})
SCALAR: tuple[Shape, ...] = ((1,), ())
WORD = 32
"""Bits of the integers into which values are packed, one after another without a gap."""


@dataclass(frozen=True)
class Stored:
    """What one format stores, whatever the scheme's granularity.

    Attributes:
        stores: Whether it can hold a scheme.
        weight: Dtype of the weight.
        packed: Whether it is called weight_packed.
        scale: Dtypes of weight_scale.
        element_bits: Of the dtype, where several values are packed into one element; else None.
    """

    stores: Callable[[Scheme], bool]
    weight: Callable[[Scheme], str]
    scale: frozenset[str]
    element_bits: int | None = None


def _plain_dtype(scheme: Scheme) -> str:
    if scheme.type == "float":
        return "F8_E4M3"
    return "I8" if scheme.num_bits <= 8 else "I16"


def _is_plain(scheme: Scheme) -> bool:
    return scheme.type == "int" or scheme.num_bits == 8


def _is_mx(bits: int) -> Callable[[Scheme], bool]:
    return lambda scheme: (
        (scheme.type, scheme.num_bits, scheme.strategy)
        == (
            "float",
            bits,
            "group",
        )
    )


_PLAIN = Stored(_is_plain, _plain_dtype, FLOATS)
LAYOUTS: Mapping[str, Stored] = {
    "naive-quantized": _PLAIN,
    "int-quantized": _PLAIN,
    "float-quantized": _PLAIN,
    "pack-quantized": Stored(
        lambda scheme: scheme.type == "int" and scheme.num_bits <= 8,
        lambda scheme: "I32",
        FLOATS,
        element_bits=WORD,
    ),
    "nvfp4-pack-quantized": Stored(
        lambda scheme: (scheme.type, scheme.num_bits) == ("float", 4),
        lambda scheme: "U8",
        frozenset({"F8_E4M3"}),
        element_bits=8,
    ),
    "mxfp4-pack-quantized": Stored(_is_mx(4), lambda scheme: "U8", E8M0, element_bits=8),
    "mxfp6-pack-quantized": Stored(_is_mx(6), lambda scheme: "U8", E8M0, element_bits=8),
    "mxfp8-quantized": Stored(_is_mx(8), lambda scheme: "F8_E4M3", E8M0),
}
"""By `format`."""


@dataclass(frozen=True)
class Layout:
    """How the layers of one group are stored.

    Attributes:
        format: A key of `LAYOUTS`.
        scheme: The weight's.
        input_scheme: The input's; None for weight-only.
        local: Whether the input's group scales alone are computed at run time.
    """

    format: str
    scheme: Scheme
    input_scheme: Scheme | None
    local: bool
    _described: dict[tuple[Shape, Shape], Mapping[Role, TensorSpec]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def weight_name(self) -> str:
        """What the weight is called."""
        return "weight_packed" if LAYOUTS[self.format].element_bits else "weight"

    def shape(self, tensors: Mapping[Role, TensorInfo]) -> Shape | None:
        """Of the weight as the model counts it; None where it cannot be told from headers."""
        weight, scale = tensors.get(Role.WEIGHT), tensors.get(Role.WEIGHT_SCALE)
        if weight is None or len(weight.shape) < 2:
            return None
        element = LAYOUTS[self.format].element_bits
        if element is None:
            return weight.shape
        size = self.scheme.group_size
        if size and scale is not None and len(scale.shape) > 1:
            # A word may be filled in part: the scales tell where the row ends.
            return (*weight.shape[:-1], scale.shape[-1] * size)
        values, rest = divmod(weight.shape[-1] * element, self.scheme.num_bits)
        return None if rest else (*weight.shape[:-1], values)

    def expected(self, tensors: Mapping[Role, TensorInfo]) -> Mapping[Role, TensorSpec]:
        """What a layer stores."""
        weight, scale = tensors.get(Role.WEIGHT), tensors.get(Role.WEIGHT_SCALE)
        key = weight.shape if weight else (), scale.shape if scale else ()
        found = self._described.get(key)
        if found is None:
            found = self._described[key] = _expected(self, *key)
        return found


def _expected(layout: Layout, weight: Shape, scale: Shape) -> Mapping[Role, TensorSpec]:
    """The shapes of each follow from the scheme and the weight's, or the scale's, shape."""
    stored, scheme = LAYOUTS[layout.format], layout.scheme
    known = len(weight) >= 2
    grouped = known and len(scale) == len(weight)
    specs = [
        _spec(Role.WEIGHT, {stored.weight(scheme)}, None, layout.weight_name),
        _spec(Role.WEIGHT_SCALE, stored.scale, _scale_shapes(layout, weight) if known else None),
    ]
    if layout.format == "pack-quantized":
        rank = ((len(weight),),) if known else None
        specs.append(_spec(Role.WEIGHT_SHAPE, {"I64", "I32"}, rank))
    if scheme.strategy == "tensor_group":
        shapes = SCALAR if len(weight) == 2 else None
        specs.append(
            _spec(Role.WEIGHT_GLOBAL_DIVISOR, {"F32"}, shapes, stored_as="weight_global_scale")
        )
    if not scheme.symmetric:
        specs.append(_zero_point(layout, weight, scale if grouped else None))
    if scheme.actorder == "group":
        columns = scale[-1] * scheme.group_size if grouped and scheme.group_size else None
        shape = ((columns,),) if columns else None
        specs.append(_spec(Role.WEIGHT_G_IDX, {"I32", "I64"}, shape))
    specs += _input_specs(layout)
    return dict(specs)


def _spec(
    role: Role,
    dtypes: frozenset[str] | set[str],
    shapes: tuple[Shape, ...] | None,
    stored_as: str = "",
) -> tuple[Role, TensorSpec]:
    return role, TensorSpec(frozenset(dtypes), shapes, stored_as or role.value)


def _scale_shapes(layout: Layout, weight: Shape) -> tuple[Shape, ...] | None:
    """Empty where no group count fits the row."""
    scheme, rows = layout.scheme, weight[:-1]
    if scheme.strategy == "tensor":
        return SCALAR
    if scheme.strategy == "channel":
        return ((*rows, 1), rows)
    least, most = _columns(layout, weight[-1])
    if scheme.strategy == "block" and scheme.block_structure:
        down, across = scheme.block_structure
        counts = range(-(-least // across), -(-most // across) + 1)
        return tuple((*weight[:-2], -(-weight[-2] // down), count) for count in counts)
    if scheme.group_size:
        counts = range(-(-least // scheme.group_size), most // scheme.group_size + 1)
        return tuple((*rows, count) for count in counts)
    return None


def _columns(layout: Layout, stored: int) -> tuple[int, int]:
    """The least and the most inputs that a row of so many elements can hold."""
    element, bits = LAYOUTS[layout.format].element_bits, layout.scheme.num_bits
    if element is None or layout.scheme.type == "float":
        columns = stored * (element or bits) // bits
        return columns, columns
    # The last word may be filled in part.
    return (stored - 1) * element // bits + 1, stored * element // bits


def _zero_point(layout: Layout, weight: Shape, scale: Shape | None) -> tuple[Role, TensorSpec]:
    """Of the scale's shape; in pack-quantized, channels and groups are packed along the outputs."""
    scheme = layout.scheme
    if layout.format == "pack-quantized" and scheme.strategy in ("channel", "group"):
        if scale is None:
            return _spec(Role.WEIGHT_ZERO_POINT, {"I32"}, None)
        packed = -(-weight[-2] * scheme.num_bits // WORD)
        return _spec(Role.WEIGHT_ZERO_POINT, {"I32"}, ((*scale[:-2], packed, scale[-1]),))
    dtypes = {"I8", "F8_E4M3"} if scheme.type == "float" else {"I8", "I16"}
    if scheme.strategy == "tensor":
        return _spec(Role.WEIGHT_ZERO_POINT, dtypes, SCALAR)
    return _spec(Role.WEIGHT_ZERO_POINT, dtypes, (scale,) if scale else None)


def _input_specs(layout: Layout) -> Iterator[tuple[Role, TensorSpec]]:
    """What is calibrated of the input; nothing where its scales are computed at run time."""
    scheme = layout.input_scheme
    if scheme is None or (scheme.dynamic and not layout.local):
        return
    if scheme.strategy == "tensor_group":
        yield _spec(Role.INPUT_GLOBAL_DIVISOR, {"F32"}, SCALAR, stored_as="input_global_scale")
        return
    shapes = SCALAR if scheme.strategy == "tensor" else None
    yield _spec(Role.INPUT_SCALE, FLOATS, shapes)
    if not scheme.symmetric:
        yield _spec(Role.INPUT_ZERO_POINT, {"I8", "F8_E4M3"}, shapes)
