"""Rule weight-dtype."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class WeightDtype(Rule):
    """A weight is stored in another dtype than its algorithm's.

    Flags:
        A layer whose weight's dtype is not the one that the declared algorithm stores. A
        high-precision weight without any scale is unquantized-not-excluded instead.
    Why:
        The label and the content differ: runtimes fail on shapes or read other numbers.
    Repair:
        Export again with the algorithm that is meant, or correct quant_algo.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/issues/868
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        weight, spec = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not layer.declared or weight is None or spec is None or weight.dtype in spec.dtypes:
            return
        if layer.packed or len(layer.tensors) > 1:
            yield self.finding(
                f"{weight.name} is {weight.dtype}; {layer.algo} stores "
                f"{' or '.join(sorted(spec.dtypes))}",
                "Export again with the declared algorithm, or declare the stored one.",
                tensor=weight.name,
                file=weight.file,
            )
