"""Rule quant-map-unordered."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

MOST_VALUES = 4096


class QuantMapUnordered(Rule):
    """bitsandbytes' table of values is no such table.

    Flags:
        A quant_map or nested_quant_map with NaN, with a value outside [-1, 1], or whose values do
        not rise (FP4's table, which follows the bits of the codes, does not rise either and may).
    Why:
        Every weight is decoded through it.
    Repair:
        Quantize and save the model again.
    Source:
        https://github.com/bitsandbytes-foundation/bitsandbytes (`functional.py`,
        `get_4bit_type`, `create_dynamic_map`)
    """

    needs: ClassVar[Needs] = "data"
    reads: ClassVar[frozenset[Role]] = frozenset({Role.QUANT_MAP, Role.NESTED_QUANT_MAP})
    formats: ClassVar[frozenset[str]] = frozenset({"bitsandbytes"})

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding a table."""
        import numpy as np

        state = layer.tensors.get(Role.QUANT_STATE)
        rises = state is None or not state.name.endswith("fp4")
        for role, ordered in ((Role.QUANT_MAP, rises), (Role.NESTED_QUANT_MAP, True)):
            info = layer.tensors.get(role)
            if info is None or info.dtype != "F32" or info.numel > MOST_VALUES:
                continue
            values = layer.read(role).reshape(-1)
            problem = "does not rise" if ordered and not (values[1:] > values[:-1]).all() else ""
            if not (np.abs(values) <= 1).all():
                problem = "has values outside [-1, 1]"
            if problem:
                yield self.finding(
                    f"{info.name} {problem}",
                    "Quantize and save the model again with bitsandbytes.",
                    tensor=info.name,
                    file=info.file,
                )
