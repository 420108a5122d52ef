"""Rule orphan-scale."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class OrphanScale(Rule):
    """Scales are stored, and their weight is not.

    Flags:
        A layer that is declared quantized, with scales and without a weight.
    Why:
        A shard was lost, or the weight was renamed and its scales were not: the layer stays
        uninitialised.
    Repair:
        Export again, or upload the shard that holds the weight.
    Source:
        https://github.com/vllm-project/vllm/pull/57108
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        if not layer.declared or Role.WEIGHT in layer.tensors or not layer.tensors:
            return
        stored = ", ".join(sorted(info.name for info in layer.tensors.values()))
        weight = layer.stored_name(Role.WEIGHT)
        yield self.finding(
            f"{weight} is not stored; beside it there is {stored}",
            "Export again, or upload the file that holds the weight.",
            tensor=weight,
            file=next(iter(layer.tensors.values())).file,
        )
