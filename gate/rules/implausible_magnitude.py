"""Rule implausible-magnitude."""

import math
from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

LEAST, MOST = 1e-5, 1e3
"""Of a layer's largest weight. Trained models have 0.05 to 50."""

NORMALISED = frozenset({"NF4", "FP4", "INT8"})
"""Algorithms of bitsandbytes: their scales are largest magnitudes themselves."""


class ImplausibleMagnitude(Rule):
    """The scales make weights larger or smaller than any model has.

    Flags:
        The largest weight that a layer's scales allow (448 times the scale for FP8, 6 times block
        scale times global scale for NVFP4) is above 1,000; below 0.00001 it is a warning. Where the
        input was smoothed, the weights make up for the smallest of its factors.
    Why:
        Some formats store a global scale, others its reciprocal: taken for the other, it is wrong
        by a factor of a million.
    Repair:
        Export again with the tool whose name the configuration bears; do not rename scales.
    Source:
        https://github.com/modular/modular/issues/6600
    """

    needs: ClassVar[Needs] = "data"

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        largest = _largest(layer)
        if largest is None or not 0 < largest < math.inf:
            return  # other rules report zeros and what is no number
        if not LEAST <= largest <= MOST:
            info = layer.tensors[Role.WEIGHT_SCALE]
            yield self.finding(
                f"the scales of {layer.name} allow weights up to {largest:.2g}; models have "
                "0.05 to 50",
                "Export again; look for a scale that is stored as its reciprocal.",
                tensor=info.name,
                file=info.file,
                severity="error" if largest > MOST else "warning",
            )


def _largest(layer: QuantizedLayer) -> float | None:
    """The largest weight that the scales allow; None where that cannot be told."""
    scheme, scales = layer.scheme, layer.scales
    scale = scales.get(Role.WEIGHT_SCALE)
    if scheme is None or scale is None or layer.algo.upper() in NORMALISED:
        return None
    largest = scale.high
    if Role.PRE_QUANT_SCALE in scales:
        largest *= scales[Role.PRE_QUANT_SCALE].low
    if scheme.strategy == "tensor_group":
        if Role.WEIGHT_GLOBAL_SCALE in scales:
            largest *= scales[Role.WEIGHT_GLOBAL_SCALE].high
        elif Role.WEIGHT_GLOBAL_DIVISOR in scales and scales[Role.WEIGHT_GLOBAL_DIVISOR].high:
            largest /= scales[Role.WEIGHT_GLOBAL_DIVISOR].high
        else:
            return None
    if scheme.type == "float":
        return largest * {4: 6, 6: 7.5}.get(scheme.num_bits, 448)
    return largest * (1 << min(scheme.num_bits - 1, 16))
