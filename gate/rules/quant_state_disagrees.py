"""Rule quant-state-disagrees."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

MOST_BYTES = 4096
"""Of a state: real ones have about 170."""


class QuantStateDisagrees(Rule):
    """bitsandbytes' state describes other tensors than are stored.

    Flags:
        A quant_state that is no JSON object; whose shape has another number of weights than are
        stored, whose blocksize another number of scales; or whose quant_type is not the one in its
        name.
    Why:
        The decoder takes shape and block size from it: it reads beyond the codes, or multiplies
        them by other blocks' scales.
    Repair:
        Quantize and save the model again; never copy a state from one layer to another.
    Source:
        https://github.com/bitsandbytes-foundation/bitsandbytes (`QuantState.as_dict`)
    """

    needs: ClassVar[Needs] = "data"
    reads: ClassVar[frozenset[Role]] = frozenset({Role.QUANT_STATE})
    formats: ClassVar[frozenset[str]] = frozenset({"bitsandbytes"})

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        info = layer.tensors.get(Role.QUANT_STATE)
        if info is None or info.dtype != "U8":
            return
        problem = f"has {info.nbytes:,} bytes"
        if info.nbytes <= MOST_BYTES:
            try:
                state = json.loads(layer.read(Role.QUANT_STATE).tobytes())
            except (ValueError, RecursionError) as error:
                state, problem = None, f"cannot be read: {error}"
            else:
                problem = "is no JSON object"
            if isinstance(state, dict):
                problem = _disagreement(layer, state, info.name.rpartition("__")[2])
        if problem:
            yield self.finding(
                f"{info.name} {problem}",
                "Quantize and save the model again with bitsandbytes.",
                tensor=info.name,
                file=info.file,
            )


def _disagreement(layer: QuantizedLayer, state: Mapping[str, Any], named: str) -> str:
    """What is wrong; "" where nothing is."""
    if state.get("quant_type") != named:
        return f"says {str(state.get('quant_type'))[:40]!r}, its name {named!r}"
    shape = state.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        return "states no shape"
    count = math.prod(shape)
    weight = layer.tensors.get(Role.WEIGHT)
    if weight is not None and weight.nbytes != -(-count // 2):
        return f"states shape {shape[:4]}, and {2 * weight.nbytes:,} weights are stored"
    scale = layer.tensors.get(Role.WEIGHT_SCALE, layer.tensors.get(Role.WEIGHT_SCALE_CODES))
    outer = layer.tensors.get(Role.NESTED_SCALE)
    for key, items, blocks in (
        ("blocksize", count, scale),
        ("nested_blocksize", scale.numel if scale else 0, outer),
    ):
        size = state.get(key)
        if blocks is None or not items:
            continue
        if type(size) is not int or size <= 0 or -(-items // size) != blocks.numel:
            return f"states {key} {str(size)[:40]}, and {blocks.name} has {blocks.numel:,} elements"
    return ""
