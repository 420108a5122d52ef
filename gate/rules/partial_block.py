"""Rule partial-block."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding, Severity
from gate.rule import Rule

BOTH_WAYS = ("FP8_PB",)
"""Algorithms whose rows, too, have to fill whole blocks: how ModelOpt's block FP8 begins."""


class PartialBlock(Rule):
    """The blocks of a block-quantized weight do not divide it.

    Flags:
        Inputs that are no multiple of the block's width; with ModelOpt's FP8_PB_WO also outputs
        that are no multiple of its height. DeepSeek's own block FP8 has legal partial rows.
    Why:
        The export is well formed, and vLLM refuses it.
    Repair:
        Leave the layer unquantized, or use an algorithm without blocks, such as FP8.
    Source:
        https://github.com/vllm-project/llm-compressor/issues/1817
    """

    severity: ClassVar[Severity] = "warning"

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        weight, scheme = layer.tensors.get(Role.WEIGHT), layer.scheme
        if not layer.declared or weight is None or scheme is None or not scheme.block_structure:
            return
        shape = layer.shape or weight.shape
        if len(shape) < 2 or not layer.packed:
            return
        (rows, columns), (down, across) = shape[-2:], scheme.block_structure
        if columns % across or (rows % down and layer.algo.upper().startswith(BOTH_WAYS)):
            yield self.finding(
                f"{weight.name} [{rows}, {columns}] does not fill whole blocks of "
                f"{down} by {across} ({layer.algo})",
                "Leave the layer unquantized, or use an algorithm without blocks.",
                tensor=weight.name,
                file=weight.file,
            )
