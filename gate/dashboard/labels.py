"""Names beside the marks of a chart, as far as there is room."""

from collections.abc import Sequence
from typing import NamedTuple

CHARACTER = 6.3
LINE = 13.0
"""Width of a character and height of a line, in the chart's units."""

GAP = 10.0
"""From the middle of a mark to its name."""

RADIUS = 6.0
"""Of a mark."""

LABEL_CHARS = 22
NAME_CHARS = 60
"""What fits beside a mark, and in a line of its own."""


class Label(NamedTuple):
    """A name beside a mark.

    Attributes:
        anchor: Which of its ends is at `x`, as SVG's `text-anchor` has it.
    """

    x: float
    y: float
    anchor: str
    text: str


class Box(NamedTuple):
    """What something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def covers(self, other: "Box") -> bool:
        """Whether they have a part in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: "Box") -> bool:
        """Whether the other lies in it."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def labels(
    names: Sequence[str], at: Sequence[tuple[float, float]], area: Box, taken: Sequence[Box]
) -> list[Label | None]:
    """A label for each mark; None where it would lie on another one or on a mark.

    Args:
        names: Of the marks, in the order in which they get room.
        at: Where the marks are.
        area: In which labels may lie.
        taken: What else is there.
    """
    covered = [*taken, *(Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in at)]
    found: list[Label | None] = []
    for name, (x, y) in zip(names, at, strict=True):
        chosen = None
        for label in _places(shortened(name.rstrip("/").rpartition("/")[2], LABEL_CHARS), x, y):
            box = extent(label)
            if area.holds(box) and not any(box.covers(other) for other in covered):
                chosen = label
                covered.append(box)
                break
        found.append(chosen)
    return found


def extent(label: Label) -> Box:
    """About what a label covers."""
    width = CHARACTER * len(label.text)
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return Box(left, label.y - LINE + 3, left + width, label.y + 3)


def shortened(text: str, most: int = NAME_CHARS) -> str:
    """A name with its beginning and its end, which tell it from others."""
    if len(text) <= most:
        return text
    tail = (most - 1) * 2 // 3
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def _places(text: str, x: float, y: float) -> tuple[Label, ...]:
    """Where a name may stand, the best first."""
    return (
        Label(x + GAP, y + 4, "start", text),
        Label(x - GAP, y + 4, "end", text),
        Label(x, y - GAP, "middle", text),
        Label(x, y + GAP + 9, "middle", text),
    )
