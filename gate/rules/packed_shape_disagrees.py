"""Rule packed-shape-disagrees."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

WORD = 32
"""Bits of the integers into which weights are packed."""


class PackedShapeDisagrees(Rule):
    """The shape that is stored beside a packed weight is not that of the weight.

    Flags:
        weight_shape of compressed-tensors' pack-quantized whose rows are not those of
        weight_packed, whose columns do not fill its words, or whose columns need another number
        of groups than weight_scale has.
    Why:
        Unpacking cuts the words to that shape: it fails, or gives a weight of another shape.
    Repair:
        Export again; do not split or join packed weights without their weight_shape.
    Source:
        https://github.com/vllm-project/compressed-tensors (`compressors/pack_quantized/`)
    """

    needs: ClassVar[Needs] = "data"
    formats: ClassVar[frozenset[str]] = frozenset({"compressed-tensors"})
    reads: ClassVar[frozenset[Role]] = frozenset({Role.WEIGHT_SHAPE})

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        weight, stated = layer.tensors.get(Role.WEIGHT), layer.tensors.get(Role.WEIGHT_SHAPE)
        if not (weight and stated and layer.scheme):
            return
        if weight.dtype != "I32" or stated.dtype not in {"I32", "I64"}:
            return
        if len(weight.shape) < 2 or stated.shape != (len(weight.shape),):
            return
        *rows, columns = (int(size) for size in layer.read(Role.WEIGHT_SHAPE))
        words = -(-columns * layer.scheme.num_bits // WORD)
        problem = None
        if (*rows, words) != weight.shape:
            problem = f"asks for {[*rows, words]} words; {weight.name} has {list(weight.shape)}"
        elif (groups := _groups(layer)) is not None:
            size = layer.scheme.group_size or columns
            if columns != groups * size:
                problem = f"does not fill the {groups:,} groups of {size:,} that have scales"
        if problem:
            yield self.finding(
                f"{stated.name} is {[*rows, columns]}, which {problem}",
                "Export again.",
                tensor=stated.name,
                file=stated.file,
            )


def _groups(layer: QuantizedLayer) -> int | None:
    """Groups of a row that have a scale; None where there are no groups."""
    scale = layer.tensors.get(Role.WEIGHT_SCALE)
    if layer.scheme is None or layer.scheme.strategy != "group":
        return None
    return scale.shape[-1] if scale and scale.shape else None
