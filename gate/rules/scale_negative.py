"""Rule scale-negative."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.codes import ScaleValues
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import ScaleRule


class ScaleNegative(ScaleRule):
    """A scale is negative.

    Flags:
        A value below zero in a weight's, an input's or the KV cache's scale. Formats with zero
        points may let a scale turn its group around (MLX and AutoRound do), and smoothing factors
        may turn a channel around: both are exempt.
    Why:
        Scales are largest magnitudes divided by a constant: a negative one flips the sign of all
        weights under it, and comes from corrupted bytes or from a tensor of another kind.
    Repair:
        Export again, and upload or download the file again if the export is sound.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`)
    """

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """The layer's scales."""
        turned = Role.WEIGHT_ZERO_POINT in layer.tensors
        if layer.scheme is None or not layer.scheme.symmetric or turned:
            return
        for role, scale in layer.scales.items():
            if role is not Role.PRE_QUANT_SCALE:
                yield from self.check_scale(layer.tensors[role], scale)

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """At most one finding."""
        if scale.low >= 0:
            return
        values, counts = scale.counted
        bad = int(counts[values < 0].sum())
        if bad:
            yield self.finding(
                f"{bad:,} of {info.numel:,} values of {info.name} are negative",
                "Export the checkpoint again.",
                tensor=info.name,
                file=info.file,
            )
