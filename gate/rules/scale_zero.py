"""Rule scale-zero."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.codes import ScaleValues
from gate.quantization import FLOAT_DTYPES, QuantizedLayer, Role
from gate.records import Finding
from gate.rule import ScaleRule

MOST_GROUPS = 64
"""Groups with a zero scale whose codes are looked at."""


class ScaleZero(ScaleRule):
    """A scale is zero.

    Flags:
        Zero in a weight's, an input's or the KV cache's scale. A zero for one group or channel is
        none where all weights under it are zero too (older exports write that); of a remote
        checkpoint, where the weights cannot be looked at, it is a warning.
    Why:
        Weights under it vanish; an input scale is inverted, and the layer computes with infinity.
        Experts that calibration never reached are the usual case.
    Repair:
        Calibrate with data that reaches every expert, and export again.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/16447
    """

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """The layer's scales."""
        if layer.scheme is None:
            return
        for role, scale in layer.scales.items():
            if scale.low > 0:
                continue
            info = layer.tensors[role]
            if role is Role.WEIGHT_SCALE and scale.high > 0 and info.numel > 1:
                if Role.QUANT_MAP in layer.tensors:
                    continue  # bitsandbytes' scale is a block's largest magnitude
                if not layer.checkpoint.local:
                    for found in self.check_scale(info, scale):
                        yield found.model_copy(update={"severity": "warning"})
                    continue
                if _is_of_zeros(layer, info):
                    continue
            yield from self.check_scale(info, scale)

    def check_scale(self, info: TensorInfo, scale: ScaleValues) -> Iterator[Finding]:
        """At most one finding."""
        if scale.low > 0:
            return
        values, counts = scale.counted
        bad = int(counts[values == 0].sum())
        if bad:
            yield self.finding(
                f"{bad:,} of {info.numel:,} values of {info.name} are zero",
                "Calibrate with data that reaches this layer, and export again.",
                tensor=info.name,
                file=info.file,
            )


def _is_of_zeros(layer: QuantizedLayer, info: TensorInfo) -> bool:
    """Whether the weights under the zeros of a scale are zero: the first `MOST_GROUPS` of them.

    Only where each scale covers a run of one row; elsewhere the zeros count.
    """
    import numpy as np

    weight = layer.tensors.get(Role.WEIGHT)
    if weight is None or weight.dtype in FLOAT_DTYPES:
        return False
    stored, rows = layer.read(Role.WEIGHT), info.shape[0]
    if not stored.shape or stored.shape[0] != rows or stored.shape[-1] % (info.numel // rows):
        return False
    if stored.size % info.numel:
        return False
    raw = layer.read(Role.WEIGHT_SCALE).reshape(-1)
    # 0x80 is minus zero, in codes of 8 bits as in each half of a byte.
    magnitude = 0x7F if raw.dtype == np.uint8 else None
    zeros = np.flatnonzero((raw & magnitude if magnitude else raw) == 0)[:MOST_GROUPS]
    codes = stored.reshape((info.numel, -1))[zeros].view(np.uint8)
    packed = layer.scheme is not None and layer.scheme.num_bits == 4
    return not np.any(codes & (0x77 if packed else 0x7F))
