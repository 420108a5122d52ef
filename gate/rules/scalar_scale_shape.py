"""Rule scalar-scale-shape."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule
from gate.rules.scale_shape import is_scalar


class ScalarScaleShape(Rule):
    """A scale of a whole tensor holds more than one value, or none.

    Flags:
        A scale that the algorithm has once a tensor and whose shape is neither [] nor [1], or what
        else the format writes for a single value.
    Why:
        Another granularity was exported than is declared, such as one scale a channel: runtimes
        fail on the shape, or take the first value for all.
    Repair:
        Export again, or declare the algorithm that was exported.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`)
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding a scale; none where a dtype is wrong."""
        weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not layer.declared or (weight and wanted and weight.dtype not in wanted.dtypes):
            return
        for role, spec in layer.expected.items():
            info = layer.tensors.get(role)
            if info is None or info.dtype not in spec.dtypes or info.shape in (spec.shapes or ()):
                continue
            if is_scalar(spec):
                yield self.finding(
                    f"{info.name} has shape {list(info.shape)}; {layer.algo} has one value for "
                    "the whole tensor",
                    "Export again, or declare the algorithm that was exported.",
                    tensor=info.name,
                    file=info.file,
                )
