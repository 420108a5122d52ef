"""Rule weight-not-finite."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from gate.checkpoint import Checkpoint, TensorInfo
from gate.quantization import SCALES, Role
from gate.records import Finding
from gate.rule import KV_SCALES, Evidence, Needs, Rule

WHOLE_BYTES = 1 << 14
"""Tensors up to this size, norms and biases among them, are read whole."""

SAMPLE_BYTES = 1 << 12
"""Read at the beginning, in the middle and at the end of larger ones: a page each."""

LEAST_BAD: Mapping[str, tuple[int, int, str]] = {
    "F8_E4M3": (0x7F, 0x7F, "u1"),
    "F8_E5M2": (0x7F, 0x7C, "u1"),
    "BF16": (0x7FFF, 0x7F80, "<u2"),
    "F16": (0x7FFF, 0x7C00, "<u2"),
    "F32": (0x7FFFFFFF, 0x7F800000, "<u4"),
}
"""What leaves out the sign, the first code from which on none is a number, and numpy's type."""


class WeightNotFinite(Rule):
    """A weight, norm or bias is NaN or infinite.

    Flags:
        NaN or infinity in a tensor of floating point, FP8 codes 0x7F and 0xFF among them. Tensors
        up to 16 KiB are read whole; of larger ones a page at the beginning, in the middle and at
        the end: a single NaN elsewhere is not found. Weights of remote checkpoints are not read.
    Why:
        One NaN in a norm makes every logit NaN. A corrupted download, or weights that were NaN
        before quantization, usually fill whole pages.
    Repair:
        Download the original again and export again.
    Source:
        https://github.com/casper-hansen/AutoAWQ/issues/498
    """

    needs: ClassVar[Needs] = "weights"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding a tensor."""
        checkpoint, broken = evidence.checkpoint, evidence.checkpoint.broken_files
        scales = {
            layer.tensors[role].name
            for layer in evidence.layers
            for role in SCALES & layer.tensors.keys()
        }
        # bitsandbytes may keep its codes in words of floats.
        scales |= {
            layer.tensors[Role.WEIGHT].name
            for layer in evidence.layers
            if {Role.WEIGHT, Role.QUANT_STATE} <= layer.tensors.keys()
        }
        for name, info in checkpoint.tensors.items():
            if info.dtype not in LEAST_BAD or info.file in broken or "mask" in name:
                continue
            if name in scales or name.endswith(KV_SCALES):
                continue  # another rule reports those
            if not _is_finite(checkpoint, info):
                yield self.finding(
                    f"{name} holds NaN or infinity",
                    "Download the original again, and export again.",
                    tensor=name,
                    file=info.file,
                )


def _is_finite(checkpoint: Checkpoint, info: TensorInfo) -> bool:
    """Whether all that is read is a number."""
    import numpy as np

    magnitude, least_bad, kind = LEAST_BAD[info.dtype]
    for begin, end in _samples(*info.data_offsets):
        codes = np.frombuffer(checkpoint.store.read(info.file, begin, end), kind)
        if codes.size and int((codes & magnitude).max()) >= least_bad:
            return False
    return True


def _samples(begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """The bytes of a tensor that are read: whole elements of up to eight bytes."""
    if end - begin <= WHOLE_BYTES:
        return ((begin, end),)
    middle = begin + (end - begin) // 16 * 8
    return tuple((start, start + SAMPLE_BYTES) for start in (begin, middle, end - SAMPLE_BYTES))
