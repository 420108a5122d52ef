"""Rule pre-quant-scale-undeclared."""

from collections.abc import Iterator

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class PreQuantScaleUndeclared(Rule):
    """A layer's input was smoothed, and the declared algorithm does not undo it.

    Flags:
        A pre_quant_scale in a layer whose algorithm has none: only the AWQ, SVDQuant and
        SmoothQuant variants do, on all or on some of their modules.
    Why:
        The weights were divided by these factors. Kernels of the declared algorithm ignore them:
        the layer computes with scaled inputs, and nothing fails.
    Repair:
        Declare the variant that was exported, such as NVFP4_AWQ for NVFP4.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`)
    """

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        info = layer.tensors.get(Role.PRE_QUANT_SCALE)
        described = layer.declared and layer.scheme is not None
        if info and described and Role.PRE_QUANT_SCALE not in layer.expected:
            yield self.finding(
                f"{info.name} is stored, and {layer.algo} does not apply it",
                "Declare the algorithm that smoothed the inputs, for example NVFP4_AWQ.",
                tensor=info.name,
                file=info.file,
            )
