"""Rule gguf-scale-not-finite."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from gate import ggml
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Evidence, Needs, Rule

if TYPE_CHECKING:
    import numpy as np

WINDOW_BYTES = 1 << 20
"""Looked at together: it stays in the processor's cache."""

MOST_BYTES = 8 << 30
"""Larger models are looked at in part: reading this takes some seconds from a fast disk."""


class GgufScaleNotFinite(Rule):
    """A block of a GGUF tensor has a scale that is infinite or no number.

    Flags:
        NaN or infinity in the scales and minima of quantized blocks: the half-precision numbers of
        most types, the eight-bit ones of MXFP4 and NVFP4. Of models above 8 GiB evenly spread parts
        are looked at; remote ones are not read.
    Why:
        All 32 to 256 weights of the block are lost: NaN logits, or the same token without end. A
        bad importance matrix is the usual cause.
    Repair:
        Quantize again, with another importance matrix or without one; llama-quantize checks it.
    Source:
        https://github.com/ggml-org/llama.cpp/issues/7311
        and https://github.com/ggml-org/llama.cpp/pull/6884
    """

    needs: ClassVar[Needs] = "weights"
    formats = frozenset({"gguf"})

    def limit(self, evidence: Evidence) -> str | None:
        """Large models are looked at in part."""
        every = _every(evidence.layers)
        return f"one in {every} MiB of the blocks was read" if every > 1 else None

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a tensor."""
        every = _every(evidence.layers)
        for layer in evidence.layers:
            seen, bad = 0, list[int]()
            for begin, blocks in _windows(layer, every):
                wrong = ggml.scales_not_finite(blocks, layer.algo)
                seen += len(blocks)
                bad += (begin + wrong.nonzero()[0]).tolist()
            if bad:
                weight = layer.tensors[Role.WEIGHT]
                yield self.finding(
                    f"{weight.name} ({layer.algo}) has a scale that is not finite in {len(bad):,} "
                    f"of {seen:,} blocks, block {bad[0]:,} for one",
                    "Quantize the model again, with another importance matrix or without one.",
                    tensor=weight.name,
                    file=weight.file,
                )


def _every(layers: Iterable[QuantizedLayer]) -> int:
    """Of how many windows one is looked at."""
    total = sum(layer.tensors[Role.WEIGHT].nbytes for layer in layers)
    return max(-(-total // MOST_BYTES), 1)


def _windows(layer: QuantizedLayer, every: int) -> Iterator[tuple[int, "np.ndarray"]]:
    """Number of the first block, and blocks as bytes: uint8, shape (blocks, bytes of a block)."""
    weight = layer.tensors[Role.WEIGHT]
    block = ggml.block(weight.dtype)
    whole = block is not None and bool(weight.shape) and not weight.shape[-1] % block.weights
    if block is None or not whole or weight.dtype not in ggml.SCALE_FIELDS:
        return
    blocks = layer.read(Role.WEIGHT).reshape(-1, block.nbytes)
    step = WINDOW_BYTES // block.nbytes
    for begin in range(0, len(blocks), step * every):
        yield begin, blocks[begin : begin + step]
