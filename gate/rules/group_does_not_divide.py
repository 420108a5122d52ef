"""Rule group-does-not-divide."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer
from gate.records import Finding
from gate.rule import Rule


class GroupDoesNotDivide(Rule):
    """A quantization group does not divide the row.

    Flags:
        A layer whose number of inputs is no multiple of the group size, where the algorithm has no
        partial groups. Partial blocks of block FP8 are partial-block.
    Why:
        No count of scales is right, and kernels refuse the layer.
    Repair:
        Choose a group size that divides the layer's inputs, or leave the layer unquantized.
    Source:
        https://github.com/vllm-project/vllm/issues/9913
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        if not layer.declared:
            return
        for role, spec in layer.expected.items():
            if spec.shapes == () and (info := layer.tensors.get(role)) is not None:
                size = layer.scheme.group_size if layer.scheme else None
                inputs = f"; it has {layer.shape[-1]:,} inputs" if layer.shape else ""
                yield self.finding(
                    f"{layer.name} does not divide into groups of {size}{inputs} ({layer.algo})",
                    "Choose a group size that divides the inputs, or leave the layer unquantized.",
                    tensor=info.name,
                    file=info.file,
                )
                return
