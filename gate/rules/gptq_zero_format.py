"""Rule gptq-zero-format."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Needs, Rule

if TYPE_CHECKING:
    import numpy as np

OFFSETS = {"GPTQ": 1, "GPTQ_V2": 0}
"""Layout to what is taken off a zero before it is stored."""


class GptqZeroFormat(Rule):
    """GPTQ zeros are stored in the other version's way.

    Flags:
        Symmetric GPTQ layers whose zeros all have the value that the other checkpoint_format
        stores: gptq (v1) stores the middle less one (0x77777777 for four bits), gptq_v2 the middle
        itself (0x88888888).
    Why:
        Every weight is off by one step: the model answers `!!!!` or nonsense.
    Repair:
        Declare the checkpoint_format that was written, or convert the zeros.
    Source:
        https://github.com/vllm-project/vllm/issues/26343
        and https://github.com/vllm-project/vllm/pull/38966
    """

    needs: ClassVar[Needs] = "data"
    reads: ClassVar[frozenset[Role]] = frozenset({Role.WEIGHT_ZERO_POINT})
    formats: ClassVar[frozenset[str]] = frozenset({"gptq"})

    def check_weights(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        zeros, scheme = layer.tensors.get(Role.WEIGHT_ZERO_POINT), layer.scheme
        layout = layer.algo.partition(" ")[0]
        if zeros is None or zeros.dtype != "I32" or not zeros.numel or layout not in OFFSETS:
            return
        if scheme is None or not scheme.symmetric or not 2 <= scheme.num_bits <= 8:
            return
        other = next(name for name in OFFSETS if name != layout)
        words = layer.read(Role.WEIGHT_ZERO_POINT).reshape(-1)
        wrong = _words(scheme.num_bits, OFFSETS[other])
        # Most sound layers are told apart by their first word.
        if words[0] != wrong[0] or len(words) % len(wrong):
            return
        if (words.reshape((-1, len(wrong))) == wrong).all():
            yield self.finding(
                f"{zeros.name} holds the zeros of {other}, 0x{int(wrong[0]) & 0xFFFFFFFF:08x}; "
                f"{layout} is declared",
                f"Write {other.lower()} into checkpoint_format, or convert the zeros.",
                tensor=zeros.name,
                file=zeros.file,
            )


@lru_cache
def _words(bits: int, offset: int) -> "np.ndarray":
    """The words of 32 zeros in the middle of the range: int32, shape (bits,)."""
    import numpy as np

    field = (1 << bits - 1) - offset
    stream = sum(field << bits * place for place in range(32))
    return np.frombuffer(stream.to_bytes(4 * bits, "little"), "<i4")
