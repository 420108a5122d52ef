"""Rule unquantized-not-excluded."""

from collections.abc import Iterator

from gate.quantization import FLOAT_DTYPES, QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class UnquantizedNotExcluded(Rule):
    """A linear layer is stored in high precision and not excluded.

    Flags:
        A two-dimensional high-precision weight without scales in a module that the configuration
        quantizes. Embeddings, norms, convolutions, routers and vision towers are not meant.
    Why:
        Runtimes allocate a packed weight and fail on the shape, or read scales that do not exist.
    Repair:
        Add the module to exclude_modules and ignore.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/1858
        and https://github.com/vllm-project/vllm/pull/52501
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        weight = layer.tensors.get(Role.WEIGHT)
        if layer.declared and weight and weight.dtype in FLOAT_DTYPES and len(layer.tensors) == 1:
            yield self.finding(
                f"{weight.name} is {weight.dtype} {list(weight.shape)} without scales; "
                f"the configuration declares it {layer.algo}",
                f"Add {layer.name} to exclude_modules and ignore, or export it quantized.",
                tensor=weight.name,
                file=weight.file,
            )
