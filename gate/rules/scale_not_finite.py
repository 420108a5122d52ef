"""Rule scale-not-finite."""

import math
from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.codes import ScaleValues
from gate.records import Finding
from gate.rule import ScaleRule


class ScaleNotFinite(ScaleRule):
    """A scale is NaN or infinite.

    Flags:
        NaN or infinity in a weight's, an input's or the KV cache's scale; in FP8 block scales that
        is byte 0x7F or 0xFF, in E8M0 byte 255.
    Why:
        One NaN makes every logit NaN: the model answers `!!!!`.
    Repair:
        Export again with ModelOpt 0.45 or newer, which clamps block scales before the cast.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/issues/1633
    """

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """At most one finding."""
        if math.isfinite(scale.low) and math.isfinite(scale.high):
            return
        import numpy as np

        values, counts = scale.counted
        bad = int(counts[~np.isfinite(values)].sum())
        if bad:
            yield self.finding(
                f"{bad:,} of {info.numel:,} values of {info.name} are NaN or infinite",
                "Calibrate and export again; look for overflow in this layer's activations.",
                tensor=info.name,
                file=info.file,
            )
