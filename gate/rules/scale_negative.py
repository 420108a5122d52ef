"""Rule scale-negative."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.codes import ScaleValues
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import ScaleRule

PACKED = ".weight_packed"


class ScaleNegative(ScaleRule):
    """A scale is negative.

    Flags:
        A value below zero in a weight's, an input's or the KV cache's scale. Formats with zero
        points may let a scale turn its group around (MLX and AutoRound do), and smoothing factors
        may turn a channel around: both are exempt. AutoRound does so without zero points too: a
        note for packed integers of compressed-tensors.
    Why:
        Scales are largest magnitudes divided by a constant: a negative one flips the sign of all
        weights under it, and comes from corrupted bytes or from a tensor of another kind.
    Repair:
        Export again, and upload or download the file again if the export is sound.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`);
        https://github.com/intel/auto-round (`auto_round/data_type/int.py`)
    """

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """The layer's scales."""
        turned = Role.WEIGHT_ZERO_POINT in layer.tensors
        if layer.scheme is None or not layer.scheme.symmetric or turned:
            return
        weight = layer.tensors.get(Role.WEIGHT)
        packed = layer.scheme.type == "int" and weight is not None and weight.name.endswith(PACKED)
        for role, scale in layer.scales.items():
            if role is not Role.PRE_QUANT_SCALE:
                for found in self.check_scale(layer.tensors[role], scale):
                    yield found.model_copy(update={"severity": "note"}) if packed else found

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
