"""What decoders of several formats share: tensors held to their description, scales applied."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gate.errors import CheckpointError
from gate.quantization import QuantizedLayer, Role, Scheme

if TYPE_CHECKING:
    import numpy as np

Change = Callable[[Any, Any], object]
"""In place, such as `operator.imul`."""


def require_as_described(layer: QuantizedLayer) -> None:
    """Refuse a layer whose tensors are not those that its declaration asks for.

    Raises:
        CheckpointError: Naming the tensor.
    """
    for role, spec in layer.expected.items():
        info = layer.tensors.get(role)
        if info is None:
            if not spec.optional:
                raise _unsound(layer, f"it has no {layer.stored_name(role)}")
        elif info.dtype not in spec.dtypes or 0 in info.shape:
            raise _unsound(layer, f"{info.name} is {info.dtype} of shape {info.shape}")
        elif spec.shapes is not None and info.shape not in spec.shapes:
            raise _unsound(layer, f"{info.name} has the shape {info.shape}")
    weight = layer.tensors[Role.WEIGHT]
    if len(weight.shape) < 2:
        raise _unsound(layer, f"{weight.name} has the shape {weight.shape}")
    for role in (Role.WEIGHT_ZERO_POINT, Role.WEIGHT_G_IDX, Role.WEIGHT_GLOBAL_DIVISOR):
        if role in layer.tensors and role not in layer.expected:
            raise _unsound(layer, f"{layer.tensors[role].name} is not declared")


def require(layer: QuantizedLayer, condition: bool, role: Role) -> None:
    """Refuse a tensor whose shape or values contradict the others.

    Raises:
        CheckpointError: Unless the condition holds.
    """
    if not condition:
        info = layer.tensors[role]
        raise _unsound(layer, f"{info.name} of shape {info.shape} contradicts the other tensors")


def _unsound(layer: QuantizedLayer, why: str) -> CheckpointError:
    return CheckpointError(
        f"{layer.name} cannot be decoded as {layer.algo}: {why}",
        "Validate the checkpoint first: gate lint " + layer.checkpoint.source,
    )


def apply(
    change: Change, values: Any, per: Any, scheme: Scheme, xp: Any, order: Any = None
) -> None:
    """Change a weight's values in place by what its tensor, channels, groups or blocks share.

    Args:
        change: Such as `operator.imul`, for scales.
        values: Contiguous, shape (..., out_features, in_features).
        per: One value for each part that the scheme names; of the shape that goes with it.
        scheme: The weight's.
        xp: numpy or torch.
        order: Each input's group, shape (in_features,); None where they follow one another.
    """
    import numpy as np

    *outer, rows, columns = values.shape
    # What overflows is infinite: rules and logits tell, a warning in between would not.
    with np.errstate(over="ignore", invalid="ignore"):
        if scheme.strategy == "tensor":
            change(values, per.reshape((*outer, 1, 1) if math.prod(per.shape) > 1 else ()))
        elif scheme.strategy == "channel":
            change(values, per.reshape((*outer, rows, 1)))
        elif order is not None:
            change(values, per[..., order])
        elif scheme.group_size:
            parts = columns // scheme.group_size
            change(values.reshape((*outer, rows, parts, scheme.group_size)), per[..., None])
        else:
            assert scheme.block_structure, "the strategies of weights are these"
            down, across = scheme.block_structure
            by_row = per[..., xp.arange(rows) // down, :]
            for index in range(per.shape[-1]):
                part = slice(index * across, (index + 1) * across)
                change(values[..., part], by_row[..., index : index + 1])


def rounded(values: "np.ndarray", dtype: str) -> "np.ndarray":
    """float32 to the nearest number of a stored dtype, ties to even, and back.

    Libraries that subtract or add after they multiply round the product in between. Where both
    terms are nearly alike, that rounding is all that their difference is made of.
    """
    import numpy as np

    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":
        codes = values.view(np.uint32)
        up = codes + (0x7FFF + (codes >> 16 & 1))
        return np.where(np.isnan(values), values, (up & 0xFFFF0000).view(np.float32))
    return values
