"""Rule fused-siblings-mixed."""

from collections.abc import Hashable, Iterator
from typing import ClassVar

from gate.architecture import fused
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Evidence, Rule

UNFUSED = frozenset({"gguf", "mlx", "exl2", "exl3", "quanto", "bitsandbytes"})
"""Formats whose runtimes keep the siblings apart, or quantize them one by one when loading."""


class FusedSiblingsMixed(Rule):
    """Layers that runtimes join into one are quantized differently.

    Flags:
        q_proj, k_proj and v_proj, gate_proj and up_proj (w1 and w3), or q_a_proj and
        kv_a_proj_with_mqa of one module with different algorithms, or only some of them quantized.
    Why:
        Runtimes load each group as one matrix with one algorithm: they stop with an error, or
        read one layer's codes in the other's way.
    Repair:
        Quantize all layers of the group alike, or exclude all of them.
    Source:
        https://github.com/vllm-project/vllm
        (`is_layer_skipped` in quantization/utils/quant_utils.py)
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a group."""
        if evidence.form is None or evidence.form.name in UNFUSED:
            return
        layers = evidence.layer_of
        others = (
            name[: -len(".weight")]
            for name in evidence.checkpoint.tensors
            if name.endswith(".weight")
        )
        names = {name: name for name in layers}
        names |= {name: name for name in others if name not in layers}
        for group in fused(names):
            if len({_declared(layers.get(name)) for name in group}) == 1:
                continue
            kinds = [_kind(layers.get(name)) for name in group]
            if all(kinds) and len(set(kinds)) > 1:
                described = ", ".join(
                    f"{name} {kind}" for name, kind in zip(group, kinds, strict=True)
                )
                yield self.finding(
                    f"runtimes join these into one layer: {described}",
                    "Quantize them alike, or exclude all of them.",
                    tensor=group[0],
                )


def _declared(layer: QuantizedLayer | None) -> Hashable:
    """What is cheap to compare: layers that are declared alike share their scheme."""
    return layer and (layer.algo, id(layer.scheme))


def _kind(layer: QuantizedLayer | None) -> str:
    """Algorithm and scheme; "" for a layer that is not stored as declared, as another rule says."""
    if layer is None:
        return "unquantized"
    weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
    as_declared = wanted is not None and weight is not None and weight.dtype in wanted.dtypes
    if not (layer.declared and layer.scheme and as_declared):
        return ""
    size = layer.scheme.group_size
    return layer.algo.upper() + (f" in groups of {size}" if size else "")
