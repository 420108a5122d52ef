"""Rule global-divisor-implausible."""

import statistics
from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule

NVFP4_LARGEST = 6 * 448
"""The largest value times the largest scale of its group."""
LEAST, MOST = 1e-3, 1e4
"""Of the median layer's largest input. Models have 1 to 1,000, single layers far more."""


class GlobalDivisorImplausible(Rule):
    """The inputs' global scales mean activations larger or smaller than any model has.

    Flags:
        input_global_scale of compressed-tensors, a divisor: 2688 over the layer's largest input.
        In the median layer that is above 10,000 or below 0.001.
    Why:
        ModelOpt's input_scale is its reciprocal. Renamed without being inverted, every input
        saturates or vanishes.
    Repair:
        Store 1 / input_scale, or calibrate again.
    Source:
        https://github.com/vllm-project/compressed-tensors
        (`quantization/utils/helpers.py`, `generate_gparam`)
        and https://github.com/modular/modular/issues/6600
    """

    severity: ClassVar[Severity] = "warning"
    needs: ClassVar[Needs] = "data"
    formats: ClassVar[frozenset[str]] = frozenset({"compressed-tensors"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        found = {
            layer.tensors[Role.INPUT_GLOBAL_DIVISOR]: NVFP4_LARGEST / scale.high
            for layer in evidence.layers
            if (scale := layer.scales.get(Role.INPUT_GLOBAL_DIVISOR)) and scale.high > 0
        }
        if not found:
            return
        middle = statistics.median_low(found.values())
        if not LEAST <= middle <= MOST:
            info = next(info for info, largest in found.items() if largest == middle)
            yield self.finding(
                f"the inputs' global scales mean activations of {middle:.2g} in the median of "
                f"{len(found):,} layers, {info.name}; models have 1 to 1,000",
                "Store the reciprocal, 2688 over the largest input, or calibrate again.",
                tensor=info.name,
                file=info.file,
            )
