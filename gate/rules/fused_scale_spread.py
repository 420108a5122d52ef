"""Rule fused-scale-spread."""

import math
from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule

WORTH_MENTIONING = 8.0
"""A ratio at which the smaller layer loses three of E4M3's exponents: weights below 1/2,000 of its
largest round coarser."""


class FusedScaleSpread(Rule):
    """Layers that runtimes quantize anew together have very different scales.

    Flags:
        The scales of whole FP8 weights among q_proj, k_proj and v_proj, or gate_proj and up_proj,
        differ by a factor of 8 or more.
    Why:
        Runtimes decode the joined layer and quantize it again to the largest scale: small weights
        of the others are rounded a second time, coarser.
    Repair:
        Nothing, if the scores hold; else scales per channel avoid it.
    Source:
        https://github.com/vllm-project/vllm (`requantize_with_max_scale`)
    """

    severity: ClassVar[Severity] = "note"
    needs: ClassVar[Needs] = "data"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all groups."""
        wide: list[tuple[float, str]] = []
        for group in evidence.siblings:
            scales = [
                layer.scales[Role.WEIGHT_SCALE].high
                for layer in group
                if layer.scheme is not None
                and (layer.scheme.strategy, layer.scheme.type) == ("tensor", "float")
                and Role.WEIGHT_SCALE in layer.scales
            ]
            low, high = min(scales, default=0.0), max(scales, default=0.0)
            if low > 0 and low * WORTH_MENTIONING <= high < math.inf:
                wide.append((high / low, group[0].name))
        if wide:
            ratio, name = max(wide)
            yield self.finding(
                f"runtimes quantize {len(wide):,} groups of joined layers anew, to a scale that is "
                f"8 or more times a member's; the widest is that of {name}, {ratio:.3g} times",
                "Nothing, if the scores hold; else quantize per channel.",
                tensor=f"{name}.weight_scale",
            )
