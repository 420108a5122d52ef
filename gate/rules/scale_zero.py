"""Rule scale-zero."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.codes import ScaleValues
from gate.records import Finding
from gate.rule import ScaleRule


class ScaleZero(ScaleRule):
    """A scale is zero.

    Flags:
        Zero in a weight's, an input's or the KV cache's scale.
    Why:
        Weights under it vanish; an input scale is inverted, and the layer computes with infinity.
        Experts that calibration never reached are the usual case.
    Repair:
        Calibrate with data that reaches every expert, and export again.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/16447
    """

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """At most one finding."""
        if scale.low > 0:
            return
        values, counts = scale.counted
        bad = int(counts[values == 0].sum())
        if bad:
            yield self.finding(
                f"{bad:,} of {info.numel:,} values of {info.name} are zero",
                "Calibrate with data that reaches this layer, and export again.",
                tensor=info.name,
                file=info.file,
            )
