"""Rule missing-scale."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class MissingScale(Rule):
    """A quantized layer lacks a scale.

    Flags:
        A layer that is declared and stored quantized without every tensor of its algorithm. Scales
        without a weight are orphan-scale.
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
        """One finding a missing tensor; none where the weight's own dtype is wrong."""
        present, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not (layer.declared and layer.packed and present and wanted):
            return
        if present.dtype not in wanted.dtypes:
            return
        for role, spec in layer.expected.items():
            if role not in layer.tensors and not spec.optional:
                yield self.finding(
                    f"{layer.name} is declared {layer.algo} and has no {spec.stored_as}",
                    "Calibrate with data that reaches this layer, and export again.",
                    tensor=layer.stored_name(role),
                    file=present.file,
                )
