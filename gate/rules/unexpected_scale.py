"""Rule unexpected-scale."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding, Severity
from gate.rule import Rule

OTHER_RULES = frozenset({Role.WEIGHT, Role.PRE_QUANT_SCALE, Role.LORA_A, Role.LORA_B})
"""pre-quant-scale-undeclared and leaked-buffer report these."""


class UnexpectedScale(Rule):
    """A layer stores a scale that its algorithm does not have.

    Flags:
        A scale, zero point or other companion of a quantized weight that the declared algorithm
        does not know, such as input_scale with a weight-only one.
    Why:
        Another algorithm was exported than is declared, or a part is left over: strict loaders
        stop at the unknown name, the others compute without it.
    Repair:
        Declare the algorithm that was exported, or export again with the declared one.
    Source:
        https://github.com/vllm-project/vllm/issues/53950
    """

    severity: ClassVar[Severity] = "warning"

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """One finding a tensor; none where the weight's dtype shows another algorithm anyway."""
        weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
        if not layer.declared or weight is None or not wanted or weight.dtype not in wanted.dtypes:
            return
        for role, info in layer.tensors.items():
            if role not in layer.expected and role not in OTHER_RULES:
                yield self.finding(
                    f"{info.name} is stored, and {layer.algo} has none",
                    "Declare the algorithm that was exported, or export again.",
                    tensor=info.name,
                    file=info.file,
                )
