"""Rule scale-headroom."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule

LEAST_HIGHEST = 224.0
"""Of the largest block scale: E4M3's largest number is 448, and recipes that try 4 for 6 as the
largest code (four over six) write at least 256 for it."""


class ScaleHeadroom(Rule):
    """Block scales of NVFP4 use only a part of FP8's range.

    Flags:
        The largest block scale of a layer, or of the layers that share its global scale, is below
        224. ModelOpt sets the global scale so that it is 448.
    Why:
        The global scale was not made for these weights: small block scales underflow sooner. On
        kernels that decode to half precision whole blocks may vanish.
    Repair:
        Nothing, if the scores hold; else export again with ModelOpt.
    Source:
        https://github.com/vllm-project/vllm/pull/34577
    """

    severity: ClassVar[Severity] = "note"
    needs: ClassVar[Needs] = "data"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all layers."""
        highest: dict[str, float] = {
            layer.name: layer.scales[Role.WEIGHT_SCALE].high
            for layer in evidence.layers
            if layer.scheme is not None
            and (layer.scheme.strategy, layer.scheme.group_size) == ("tensor_group", 16)
            and Role.WEIGHT_SCALE in layer.scales
        }
        for group in evidence.siblings:
            shared = [highest[layer.name] for layer in group if layer.name in highest]
            highest |= {layer.name: max(shared) for layer in group if layer.name in highest}
        low = [(value, name) for name, value in highest.items() if 0 < value < LEAST_HIGHEST]
        if low:
            value, name = min(low)
            yield self.finding(
                f"the largest block scale of {len(low):,} of {len(highest):,} layers is below 224 "
                f"of FP8's 448; the smallest, of {name}, is {value:g}",
                "Nothing, if the scores hold; else export again with ModelOpt.",
                tensor=f"{name}.weight_scale",
            )
