"""Rule scale-shape."""

import math
from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.quantization import QuantizedLayer, Role, TensorSpec
from gate.records import Finding
from gate.rule import Rule

_FIX = "Export again; check group_size if it was changed by hand."
_REARRANGED = "Quantize the model again, and save it before it generates on a CPU."


class ScaleShape(Rule):
    """A tensor of a quantized layer does not fit the others.

    Flags:
        Scales and zero points of the wrong dtype; channel, group and block scales, and packed
        weights, whose shape is not the one that follows from the layer's other tensors and its
        algorithm. Scales of a whole tensor are scalar-scale-shape, groups that do not divide a row
        are group-does-not-divide.
    Why:
        Swizzled or half-width scales of another runtime load without an error and give garbage.
        bitsandbytes rearranges four-bit layers for its CPU kernels once the model generates: what
        is saved afterwards keeps transposed scales, and talks nonsense when it is loaded again.
    Repair:
        Export again; with compressed weights, by ModelOpt 0.46 or newer; with bitsandbytes, before
        the model generates.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/2038;
        https://github.com/bitsandbytes-foundation/bitsandbytes (`functional.py`,
        `_convert_weight_packed_for_cpu_inverse`)
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding a tensor; none where the weight's own dtype is wrong."""
        weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not layer.declared or (weight and wanted and weight.dtype not in wanted.dtypes):
            return
        for role, spec in layer.expected.items():
            info = layer.tensors.get(role)
            if info is not None and (problem := _problem(info, spec)):
                beside = f", weight {list(weight.shape)}" if weight and role != "weight" else ""
                yield self.finding(
                    f"{info.name} {problem}{beside} ({layer.algo})",
                    _REARRANGED if Role.QUANT_STATE in layer.tensors else _FIX,
                    tensor=info.name,
                    file=info.file,
                )


def _problem(info: TensorInfo, spec: TensorSpec) -> str | None:
    """What is wrong with the tensor; None where nothing is, or another rule says so."""
    if info.dtype not in spec.dtypes:
        return f"is {info.dtype}, not {' or '.join(sorted(spec.dtypes))}"
    if not spec.shapes or info.shape in spec.shapes or is_scalar(spec):
        return None
    shapes = " or ".join(str(list(shape)) for shape in spec.shapes)
    return f"has shape {list(info.shape)}, not {shapes}"


def is_scalar(spec: TensorSpec) -> bool:
    """Whether one value is all that is accepted."""
    return bool(spec.shapes) and all(math.prod(shape) == 1 for shape in spec.shapes or ())
