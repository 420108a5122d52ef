"""What a metric retains beside its limit, as a small drawing: positions, and what it shows."""

import math
from typing import NamedTuple

from gate.records import Comparison
from gate.reports import metrics
from gate.verdict import SPEED

WIDTH, HEIGHT = 180, 22
MARGIN = 8
"""Units of the drawing, left free on either side."""


class Interval(NamedTuple):
    """Where the marks stand, in units from the left.

    Attributes:
        allowed: Left end and width of what the limit allows.
        low, high: Ends of the 95 % interval.
        value: What is retained.
        limit: The limit.
        same: Where baseline and candidate are equal.
        said: All of it in words.
    """

    allowed: tuple[float, float]
    low: float
    high: float
    value: float
    limit: float
    same: float
    said: str


def interval(comparison: Comparison) -> Interval | None:
    """The drawing of one metric; None where it has no interval, or no limit on its scale."""
    c = comparison
    if c.threshold is None or c.absolute or c.min_score is not None or c.task == SPEED:
        return None
    if c.ci_low is None or c.ci_high is None or c.early_stop is not None:
        return None
    limit = float(metrics.limit(c).split()[-1])
    known = (c.ci_low, c.ci_high, c.retention, limit, 1.0)
    if not all(map(math.isfinite, known)):
        return None
    least, most = min(known), max(known)
    room = (WIDTH - 2 * MARGIN) / (most - least) if most > least else 0.0

    def at(value: float) -> float:
        return round(MARGIN + (value - least) * room, 1)

    wall = at(limit)
    return Interval(
        allowed=(wall, WIDTH - wall) if c.higher_is_better else (0.0, wall),
        low=at(c.ci_low),
        high=at(c.ci_high),
        value=at(c.retention),
        limit=wall,
        same=at(1.0),
        said=(
            f"retained {c.retention:.3f}, 95 % interval {c.ci_low:.3f} to {c.ci_high:.3f}, "
            f"limit {metrics.limit(c)}"
        ),
    )
