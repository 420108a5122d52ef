"""How a text's inputs fit the static scales by which they are rounded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gate.backends.hf_rounding import InputQuantizer

if TYPE_CHECKING:
    from torch import Tensor


class InputRange:
    """What one quantizer was given.

    Attributes:
        values, beyond: Inputs, and those larger than the scale can hold.
        largest: Magnitude of the largest.
        held: The largest magnitude that the scale can hold.
    """

    def __init__(self, held: float) -> None:
        self.held = held
        self.values = self.beyond = 0
        self.largest = 0.0

    def add(self, x: "Tensor") -> None:
        """Count one input."""
        size = x.detach().abs()
        self.values += size.numel()
        self.beyond += int((size > self.held).sum())
        self.largest = max(self.largest, float(size.amax()))

    @property
    def clipped(self) -> float:
        """Share of the inputs that the scale cannot hold."""
        return self.beyond / self.values if self.values else 0.0


@contextmanager
def watching(quantizers: Mapping[str, InputQuantizer]) -> Iterator[dict[str, InputRange]]:
    """Count what quantizers with a static scale are given, by the name of their parameter."""
    ranges = {
        name: InputRange(quantizer.largest)
        for name, quantizer in quantizers.items()
        if quantizer.largest is not None
    }
    for name, found in ranges.items():
        quantizers[name].observer = found.add
    try:
        yield ranges
    finally:
        for name in ranges:
            quantizers[name].observer = None
