"""Which tensors ModelOpt stores for a linear layer: their names, dtypes and shapes.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/unified_export_hf.py`);
the layouts of stacked experts were read off exports of Llama 4 and gpt-oss by ModelOpt 0.47.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gate.formats.modelopt_algorithms import Algorithm, algorithm
from gate.quantization import FLOAT_DTYPES, Role, Scheme, TensorSpec

Shape = tuple[int, ...]

STORED_AS = {
    Role.WEIGHT: "weight",
    Role.WEIGHT_SCALE: "weight_scale",
    Role.WEIGHT_GLOBAL_SCALE: "weight_scale_2",
    Role.INPUT_SCALE: "input_scale",
    Role.PRE_QUANT_SCALE: "pre_quant_scale",
    Role.LORA_A: "weight_quantizer._svdquant_lora_a",
    Role.LORA_B: "weight_quantizer._svdquant_lora_b",
}
"""The name, below the module's, under which ModelOpt stores each role."""

_F32 = frozenset({"F32"})
_FLOATS = FLOAT_DTYPES - {"F64"}


@dataclass(frozen=True)
class Description:
    """What follows from an algorithm, its group size and the weight's header.

    Attributes:
        shape: See `QuantizedLayer.shape`.
    """

    scheme: Scheme | None = None
    input_scheme: Scheme | None = None
    expected: Mapping[Role, TensorSpec] = field(default_factory=dict)
    shape: Shape | None = None


@lru_cache(maxsize=1 << 12)
def describe(
    algo: str,
    group_size: int | None,
    dtype: str,
    stored: Shape,
    stacked: bool = False,
    ranks: tuple[int | None, int | None] = (None, None),
) -> Description:
    """What a layer of an algorithm stores beside such a weight; layers alike share it.

    Args:
        algo: As declared; "" for none.
        group_size: As declared.
        dtype: Of the stored weight; "" where there is none.
        stored: Its shape; () where there is none.
        stacked: Whether one tensor holds all experts.
        ranks: Of each low-rank factor, as the other one has it.
    """
    known = algorithm(algo)
    if known is None or known.scheme is None:
        # One element is one weight, but for bytes that may hold two.
        return Description(shape=None if dtype in {"", "U8"} else _logical(None, stored))
    scheme = known.scheme
    if group_size and scheme.group_size:
        scheme = replace(scheme, group_size=group_size)
    shape = None
    if dtype == known.weight:
        shape = _logical(known, stored)
    elif dtype not in {"", "U8"}:
        shape = _logical(None, stored)
    # Stacked, the weight bears the module's name, and so begins each companion's.
    names = {role: f"_{name}" for role, name in STORED_AS.items()} if stacked else STORED_AS
    found = {
        role: replace(spec, stored_as="" if stacked and role is Role.WEIGHT else names[role])
        for role, spec in _expected(known, scheme, shape, ranks).items()
    }
    return Description(scheme, known.input_scheme, found, shape)


def _logical(known: Algorithm | None, stored: Shape) -> Shape | None:
    """(out_features, in_features), experts first; None for anything but two or three dimensions."""
    if len(stored) == 3:
        experts, inputs, outputs = stored
    elif len(stored) == 2:
        outputs, inputs = stored
    else:
        return None
    if known is not None and known.weight_bits == 4:
        along = known.packed_along
        if len(stored) == 3:
            # Without an example, pairs are taken to lie along the inputs.
            along = known.experts_grouped_along or "in"
        inputs, outputs = (2 * inputs, outputs) if along == "in" else (inputs, 2 * outputs)
    return (experts, outputs, inputs) if len(stored) == 3 else (outputs, inputs)


def _expected(
    known: Algorithm,
    scheme: Scheme,
    shape: Shape | None,
    ranks: tuple[int | None, int | None],
) -> dict[Role, TensorSpec]:
    """Shapes follow from the weight's as the model counts it."""
    scalars: tuple[Shape, ...] = ((), (1,))
    if shape and len(shape) == 3:
        scalars += ((shape[0],), (shape[0], 1), (shape[0], 1, 1))
    per_input = ((shape[-1],),) if shape else None
    expected = {
        Role.WEIGHT: TensorSpec(frozenset({known.weight})),
        Role.WEIGHT_SCALE: TensorSpec(known.scale, _scale_shapes(known, scheme, shape, scalars)),
    }
    if scheme.strategy == "tensor_group":
        expected[Role.WEIGHT_GLOBAL_SCALE] = TensorSpec(_F32, scalars)
    if known.input_scale != "never":
        maybe = known.input_scale == "maybe"
        expected[Role.INPUT_SCALE] = TensorSpec(_F32, scalars, optional=maybe)
    if known.smoothed:
        expected[Role.PRE_QUANT_SCALE] = TensorSpec(_FLOATS, per_input, optional=True)
    if known.low_rank:
        outputs, inputs = shape if shape and len(shape) == 2 else (None, None)
        down, up = (ranks[0], inputs), (outputs, ranks[1])
        expected[Role.LORA_A] = TensorSpec(_FLOATS, _known(down), optional=True)
        expected[Role.LORA_B] = TensorSpec(_FLOATS, _known(up), optional=True)
    return expected


def _known(shape: tuple[int | None, ...]) -> tuple[Shape, ...] | None:
    """The only accepted shape; None where a side of it is not known."""
    sides = tuple(side for side in shape if side is not None)
    return (sides,) if len(sides) == len(shape) else None


def _scale_shapes(
    known: Algorithm, scheme: Scheme, shape: Shape | None, scalars: tuple[Shape, ...]
) -> tuple[Shape, ...] | None:
    """Accepted shapes of `weight_scale`; none where a group does not divide."""
    if scheme.strategy == "tensor":
        return scalars
    if shape is None:
        return None
    *experts, outputs, inputs = shape
    if scheme.strategy == "channel":
        if experts:
            return ((*experts,), (*experts, outputs)) if scheme.type == "float" else None
        return ((outputs,), (outputs, 1))
    if scheme.block_structure:
        rows, columns = scheme.block_structure
        down, across = -(-outputs // rows), -(-inputs // columns)
        accepted = ((*experts, down, 1, across, 1), (*experts, down, across))
        # The scale of a single block is exported as a scalar.
        return (*accepted, *scalars) if down == across == 1 else accepted
    assert scheme.group_size, "a grouped scheme has a group size"
    along = known.experts_grouped_along if experts else "in"
    if along is None:
        return None
    groups, rest = divmod(inputs if along == "in" else outputs, scheme.group_size)
    if rest:
        return ()
    if not experts:
        return ((outputs, groups),)
    return ((*experts, groups, outputs),) if along == "in" else ((*experts, inputs, groups),)
