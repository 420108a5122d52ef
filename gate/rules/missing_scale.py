"""Rule missing-scale."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class MissingScale(Rule):
    """A quantized layer lacks a scale, or its weight.

    Flags:
        A layer that is declared and stored quantized without every tensor of its algorithm;
        scales without a weight.
    Why:
        Runtimes leave the scale uninitialised, or take 0 or 1: garbage, or NaN for some prompts.
        Experts that calibration never reached are the usual case.
    Repair:
        Calibrate with data that reaches every expert, and export again.
    Source:
        https://github.com/vllm-project/vllm/issues/45212
        and https://github.com/vllm-project/vllm/pull/54444
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """One finding a missing tensor."""
        if not layer.declared or not (layer.packed or Role.WEIGHT not in layer.tensors):
            return
        present = next(iter(layer.tensors.values()))
        for role, spec in layer.expected.items():
            if role not in layer.tensors:
                yield self.finding(
                    f"{layer.name} is declared {layer.algo} and has no {spec.stored_as}",
                    "Calibrate with data that reaches this layer, and export again.",
                    tensor=f"{layer.name}.{spec.stored_as}",
                    file=present.file,
                )
