"""Rule kv-scale-range."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule

MOST = 0.5
"""Keys and values up to 224; ordinary models have 0.002 to 0.2."""


class KvScaleRange(Rule):
    """Scales of the KV cache are larger than keys and values call for.

    Flags:
        k_scale or v_scale above 0.5, other than 1.0, which means no calibration and which ModelOpt
        wrote for every smaller one before 0.43.
    Why:
        A scale is the largest key or value divided by 448. One above 0.5 comes from an outlier of
        more than 224, or is the reciprocal: in both cases ordinary values lose their digits.
    Repair:
        Calibrate the KV cache on ordinary text, or leave it in 16 bits.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/blob/main/CHANGELOG.rst (0.43)
    """

    severity: ClassVar[Severity] = "warning"
    needs: ClassVar[Needs] = "data"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all scales."""
        scales = evidence.kv_scales
        large = [(scale.high, info) for info, scale in scales if scale.high > MOST]
        large = [(value, info) for value, info in large if value != 1.0]
        if large:
            value, info = max(large)
            yield self.finding(
                f"{len(large):,} of {len(scales):,} scales of the KV cache are above {MOST}; "
                f"{info.name} is {value:.4g}",
                "Calibrate the KV cache on ordinary text, or leave it in 16 bits.",
                tensor=info.name,
                file=info.file,
            )
