"""Rule scale-constant."""

from collections.abc import Iterator
from typing import ClassVar

from gate.architecture import layer_index
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule

LEAST_BLOCKS = 1025
"""Of a layer: a few blocks may agree by chance."""

LEAST_LAYERS = 8
"""Decoder layers whose inputs cannot all have the same largest value."""

POWERS_OF_TWO = frozenset({"U8", "F8_E8M0"})
"""Dtypes of scales so coarse that many blocks agree."""


class ScaleConstant(Rule):
    """All scales have one value.

    Flags:
        All block scales of a layer with more than 1,024 of them are equal; all input scales are
        equal over at least eight decoder layers, and not 1.0, which recipes without calibration
        write. Scales that are powers of two are not meant.
    Why:
        Calibration did not reach the layer, or a default was written instead of its result: blocks
        of small weights are rounded to zero, or activations clipped.
    Repair:
        Calibrate with real data, and export again.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/issues/500
    """

    severity: ClassVar[Severity] = "warning"
    needs: ClassVar[Needs] = "data"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for the inputs of all layers."""
        inputs = [layer for layer in evidence.layers if Role.INPUT_SCALE in layer.scales]
        if not inputs:
            return
        first = inputs[0].scales[Role.INPUT_SCALE].low
        if first == 1.0 or any(
            (scale := layer.scales[Role.INPUT_SCALE]).low != first or scale.high != first
            for layer in inputs
        ):
            return
        if len({layer_index(f"{layer.name}.") for layer in inputs} - {None}) >= LEAST_LAYERS:
            yield self.finding(
                f"all {len(inputs):,} input scales are {first:g}",
                "Calibrate with real data, and export again.",
                tensor=inputs[0].tensors[Role.INPUT_SCALE].name,
            )

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        info, scheme = layer.tensors.get(Role.WEIGHT_SCALE), layer.scheme
        if info is None or scheme is None or Role.WEIGHT_SCALE not in layer.scales:
            return
        blocks = scheme.strategy in {"group", "tensor_group", "block"}
        if not blocks or info.dtype in POWERS_OF_TWO:
            return
        scale = layer.scales[Role.WEIGHT_SCALE]
        if scale.low == scale.high and info.numel >= LEAST_BLOCKS:
            yield self.finding(
                f"all {info.numel:,} values of {info.name} are {scale.low:g}",
                "Calibrate with real data, and export again.",
                tensor=info.name,
                file=info.file,
            )
