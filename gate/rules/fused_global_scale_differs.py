"""Rule fused-global-scale-differs."""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from gate.architecture import expert_index
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Evidence, Needs, Rule

MOST_RATIO = 1.05
"""Between two global scales: block scales absorb less than half a step of E4M3, 1/16."""

GLOBAL = (Role.WEIGHT_GLOBAL_SCALE, Role.WEIGHT_GLOBAL_DIVISOR)
INPUT = (Role.INPUT_SCALE, Role.INPUT_GLOBAL_DIVISOR)


class FusedGlobalScaleDiffers(Rule):
    """Layers that runtimes join into one have different global scales.

    Flags:
        The global scale of NVFP4 weights differs between q_proj, k_proj and v_proj, or gate_proj
        and up_proj (of an expert too): an error above a ratio of 1.05, else a warning. Likewise the
        input's scale outside experts, a warning. Scales of whole FP8 weights differ normally.
    Why:
        The joined layer has one global scale: vLLM takes the largest, or the gate's, for all, and
        the other layers' weights are off by the ratio. TensorRT-LLM stops.
    Repair:
        Export with ModelOpt's export_hf_checkpoint, which calibrates siblings together.
    Source:
        https://github.com/vllm-project/vllm/issues/54974
        and https://github.com/intel/auto-round/pull/2379
    """

    needs: ClassVar[Needs] = "data"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding a group for the weights and one for the inputs."""
        for group in evidence.siblings:
            for role in GLOBAL:
                yield from self._differs(group, role)
            if expert_index(group[0].name) is None:
                for role in INPUT:
                    yield from self._differs(group, role)

    def _differs(self, group: Sequence[QuantizedLayer], role: Role) -> Iterator[Finding]:
        scales = [layer.scales[role].high for layer in group if role in layer.scales]
        low, high = min(scales, default=0.0), max(scales, default=0.0)
        if not 0 < low < high < math.inf:
            return  # equal, or reported by another rule
        # Each sibling's input has its own scale where it was smoothed by its own factors.
        if role in INPUT and any(Role.PRE_QUANT_SCALE in layer.tensors for layer in group):
            return
        names = " and ".join(layer.name.rpartition(".")[2] for layer in group)
        severe = role in GLOBAL and not high / low <= MOST_RATIO
        stored_as = group[0].tensors[role].name.rpartition(".")[2]
        yield self.finding(
            f"{group[0].name.rpartition('.')[0]}: {stored_as} of {names} differ by a factor of "
            f"{high / low:.4g}",
            "Calibrate these layers together, and export again.",
            tensor=group[0].tensors[role].name,
            file=group[0].tensors[role].file,
            severity="error" if severe else "warning",
        )
