"""Rule weight-all-zero."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import FLOAT_DTYPES, QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

SAMPLE_BYTES = 1 << 10
"""Read in the middle of a weight; only where all of them are zero, the rest is read."""


class WeightAllZero(Rule):
    """A quantized weight consists of zeros.

    Flags:
        All stored bytes of a quantized layer's weight are zero. Weights of remote checkpoints are
        not read.
    Why:
        The file was allocated and never written, or the layer's data was lost on the way: the layer
        computes nothing.
    Repair:
        Export again, and upload or download the file again.
    Source:
        https://github.com/vllm-project/vllm/pull/54444
    """

    needs: ClassVar[Needs] = "weights"

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        info = layer.tensors.get(Role.WEIGHT)
        if info is None or info.dtype in FLOAT_DTYPES or not info.nbytes:
            return
        begin, end = info.data_offsets
        middle = begin + (end - begin) // 2
        store = layer.checkpoint.store
        if any(store.read(info.file, middle, min(end, middle + SAMPLE_BYTES))):
            return
        if not layer.read(Role.WEIGHT).any():
            yield self.finding(
                f"all {info.numel:,} elements of {info.name} are zero",
                "Export again, and upload or download the file again.",
                tensor=info.name,
                file=info.file,
            )
