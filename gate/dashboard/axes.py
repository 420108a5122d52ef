"""From figures to places on a chart."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TICKS = 4
"""About so many lines a chart has in each direction."""

ROOM = 0.06
"""Of an axis, beyond the outermost figures."""

LINE = 14
"""Height of what stands at a tick."""

BEYOND = 2
"""A figure that is so many times as far from the original as the limit is shown at the edge."""


class Tick(NamedTuple):
    """A place on an axis, and what stands there."""

    at: float
    text: str


class Axis(NamedTuple):
    """A line from one figure to another.

    Attributes:
        low, high: The figures at both ends.
        start, end: Where these are on the chart; either may be the larger.
        cut: What stands at the end beyond which figures lie; empty if none does.
    """

    low: float
    high: float
    start: float
    end: float
    cut: str = ""

    def at(self, value: float) -> float:
        """Where a figure is; the nearest end for one that lies beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, unit: float = 1.0) -> tuple[Tick, ...]:
        """Round figures, in units of so many.

        Args:
            unit: For example 1e9 where bytes are shown as gigabytes.
        """
        step = _step((self.high - self.low) / unit / TICKS)
        first, last = self.low / unit / step, self.high / unit / step
        digits = max(0, math.ceil(-math.log10(step) - 1e-9) + (f"{step:e}"[:3] == "2.5"))
        found = [
            Tick(self.at(number * step * unit), f"{number * step:,.{digits}f}")
            for number in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
        ]
        if not self.cut:
            return tuple(found)
        edge = Tick(self.at(self.low if self.cut.startswith("≤") else self.high), self.cut)
        return (edge, *(tick for tick in found if abs(tick.at - edge.at) > LINE))


def linear(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis that shows all of these."""
    low, high = min(values), max(values)
    room = (high - low) * ROOM or abs(high) * ROOM or 1.0
    return Axis(low - room, high + room, start, end)


def better_up(
    values: Sequence[float], limits: Iterable[float], higher: bool, bottom: float, top: float
) -> Axis:
    """An upright axis of what is retained, with the better end on top.

    A checkpoint that kept nothing would press all others together, so that far beyond the limit
    figures are shown at the edge.

    Args:
        values: What is shown on it.
        limits: What it is held to.
        higher: Whether more is better.
        bottom, top: Its ends on the chart.
    """
    held = list(limits)
    shown = [*values, *held, 1.0]
    best, worst = (max(shown), min(shown)) if higher else (min(shown), max(shown))
    far = worst
    if held:
        apart = BEYOND * max(0.03, *(abs(1 - limit) for limit in held))
        far = max(worst, min(held) - apart) if higher else min(worst, max(held) + apart)
    room = abs(best - far) * ROOM or 0.01
    cut = "" if far == worst else f"{'≤' if higher else '≥'} {far:.2f}"
    edge = far if cut else (far - room if higher else far + room)
    if higher:
        return Axis(edge, best + room, bottom, top, cut)
    return Axis(best - room, edge, top, bottom, cut)


def _step(about: float) -> float:
    """The round number that is nearest above."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= about * 0.999)
