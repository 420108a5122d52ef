"""Rule g-idx-out-of-range."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

if TYPE_CHECKING:
    import numpy as np


class GIdxOutOfRange(Rule):
    """The order of a layer's inputs names groups that do not exist, or not the declared ones.

    Flags:
        g_idx (weight_g_idx in compressed-tensors) with a group below 0 or beyond the last; groups
        out of order where no activation order (desc_act, actorder) is declared.
    Why:
        Kernels read beyond the scales; runtimes that trust the declaration ignore the order and
        multiply by other inputs' scales, which gives fluent nonsense.
    Repair:
        Export again; declare desc_act if the layer was quantized with it.
    Source:
        https://github.com/microsoft/mobius/pull/733
        and https://github.com/ModelCloud/GPTQModel
    """

    needs: ClassVar[Needs] = "data"
    reads: ClassVar[frozenset[Role]] = frozenset({Role.WEIGHT_G_IDX})

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        info, scheme = layer.tensors.get(Role.WEIGHT_G_IDX), layer.scheme
        if info is None or scheme is None or info.dtype not in {"I32", "I64"} or not info.numel:
            return
        found = layer.read(Role.WEIGHT_G_IDX).reshape(-1)
        groups = -(-len(found) // scheme.group_size) if scheme.group_size else 1
        low, high = int(found.min()), int(found.max())
        if low == high == -1:
            return  # compressed-tensors' way to say that the inputs are in order
        problem = None
        if low < 0 or high >= groups:
            problem = f"names groups {low:,} to {high:,}; the layer has {groups:,}"
        elif not scheme.actorder and not _in_order(found, scheme.group_size):
            problem = f"is out of order, and {layer.algo} declares no activation order"
        if problem:
            yield self.finding(
                f"{info.name} {problem}",
                "Export again, or declare the order with which the layer was quantized.",
                tensor=info.name,
                file=info.file,
            )


def _in_order(groups: "np.ndarray", group_size: int | None) -> bool:
    import numpy as np

    wanted = np.arange(len(groups)) // group_size if group_size else np.zeros_like(groups)
    return bool((groups == wanted).all())
