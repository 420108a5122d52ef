"""Rule excluded-but-quantized."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer
from gate.records import Finding
from gate.rule import Rule


class ExcludedButQuantized(Rule):
    """A module is excluded from quantization and stored quantized.

    Flags:
        A packed weight, or scales, of a module that the configuration excludes, or that it leaves
        out where it lists every layer's algorithm.
    Why:
        Runtimes build a plain layer and fail on the scales, or read the codes as weights.
    Repair:
        Remove the module from exclude_modules and ignore, or export it unquantized.
    Source:
        https://github.com/vllm-project/vllm/issues/44081
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        if layer.declared:
            return
        info = next(iter(layer.tensors.values()))
        stored = ", ".join(f"{role} {info.dtype}" for role, info in sorted(layer.tensors.items()))
        yield self.finding(
            f"{layer.name} is not to be quantized by the configuration and is stored as {stored}",
            "Remove it from exclude_modules and ignore (or name it in quantized_layers).",
            tensor=info.name,
            file=info.file,
        )
