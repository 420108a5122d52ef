"""Rule bits-per-weight."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import ClassVar

from gate.checkpoint import DTYPE_BITS
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

TOLERANCE = 1.25
"""Of the nominal width: scales of the smallest usual groups add an eighth to 4 bits."""


class BitsPerWeight(Rule):
    """The quantized layers take more bits a weight than their algorithm's.

    Flags:
        The layers that are declared quantized, weights and scales together, take over a quarter
        more bits than the algorithm stores, scales included.
    Why:
        The label is not what was exported: a public checkpoint that is called NVFP4 holds 6.1 bits
        a weight, since part of it is FP8. Memory and speed are not what the label promises.
    Repair:
        Export again with the algorithm that is meant, or declare each layer's own.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/issues/868
    """

    severity: ClassVar[Severity] = "warning"
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        alike: dict[Hashable, list[QuantizedLayer]] = defaultdict(list)
        for layer in evidence.layers:
            weight = layer.tensors.get(Role.WEIGHT)
            if weight is not None and layer.declared:
                alike[id(layer.expected), weight.dtype, weight.shape].append(layer)
        stored = nominal = weights = 0.0
        for layers in alike.values():
            layer, count = layers[0], len(layers)
            elements, bits = _elements(layer), _nominal_bits(layer)
            if elements and bits:
                stored += count * _stored_bits(layer)
                nominal += count * bits * elements
                weights += count * elements
        if stored > TOLERANCE * nominal:
            algos = sorted(
                {layer.algo.upper() for layers in alike.values() for layer in layers[:1]}
            )
            yield self.finding(
                f"the layers declared {', '.join(algos[:5])} take {stored / weights:.2f} bits a "
                f"weight, where {nominal / weights:.2f} are nominal",
                "Export again with the declared algorithm, or declare the stored one.",
            )


def _nominal_bits(layer: QuantizedLayer) -> float | None:
    """Bits a weight of the declared algorithm; None where the weight holds its own scales."""
    scale = layer.expected.get(Role.WEIGHT_SCALE)
    if layer.scheme is None or scale is None:
        return None
    widest = max((DTYPE_BITS.get(dtype, 0) for dtype in scale.dtypes), default=0)
    return layer.scheme.num_bits + widest / (layer.scheme.group_size or math.inf)


def _stored_bits(layer: QuantizedLayer) -> int:
    """Of the weight and the scales of its groups."""
    found = (layer.tensors.get(role) for role in (Role.WEIGHT, Role.WEIGHT_SCALE))
    return sum(8 * info.nbytes for info in found if info)


def _elements(layer: QuantizedLayer) -> int:
    """Weights of a layer: what its dtype holds, where that is not the algorithm's."""
    weight, wanted = layer.tensors[Role.WEIGHT], layer.expected.get(Role.WEIGHT)
    if wanted and weight.dtype not in wanted.dtypes:
        return weight.numel
    return math.prod(layer.shape) if layer.shape else 0
