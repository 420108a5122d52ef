"""Rule scale-shape."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class ScaleShape(Rule):
    """A scale has another shape or dtype than its weight and algorithm ask for.

    Flags:
        Scales of the wrong dtype; whole-tensor scales that are no scalar; channel, group and
        block scales that do not fit the weight's shape; groups that do not divide a row.
    Why:
        Swizzled or half-width scales of another runtime load without an error and give garbage.
    Repair:
        Export again; with compressed weights, by ModelOpt 0.46 or newer.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/2038
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding a scale; none where the weight's own dtype is wrong."""
        weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not layer.declared or (weight and wanted and weight.dtype not in wanted.dtypes):
            return
        for role, spec in layer.expected.items():
            info = layer.tensors.get(role)
            if info is None or role is Role.WEIGHT:
                continue
            problem = None
            if info.dtype not in spec.dtypes:
                problem = f"is {info.dtype}, not {' or '.join(sorted(spec.dtypes))}"
            elif spec.shapes is not None and info.shape not in spec.shapes:
                shape = " or ".join(str(list(shape)) for shape in spec.shapes)
                whole = f", weight {list(weight.shape)}" if weight else ""
                problem = f"has shape {list(info.shape)}, not {shape or 'any that fits'}{whole}"
            if problem:
                yield self.finding(
                    f"{info.name} {problem} ({layer.algo})",
                    "Export again; check group_size if it was changed by hand.",
                    tensor=info.name,
                    file=info.file,
                )
