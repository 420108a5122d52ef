"""Two charts as coordinates: size against accuracy, and what was retained over time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gate.dashboard import axes
from gate.dashboard.axes import Axis, Tick
from gate.dashboard.labels import LINE, RADIUS, Box, Label, extent, labels
from gate.dashboard.rows import Measure, Row


class Frame(NamedTuple):
    """A chart's size, and where the part with the marks lies in it."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


FRAME = Frame(576, 336, left=60, right=490, top=64, bottom=292)
"""Above the marks is room for what is said of the checkpoint that is pointed at."""

SMALL_FRAME = Frame(320, 132, left=50, right=312, top=10, bottom=110)


MOST_POINTS = 100
"""On one chart of sizes."""


class Figure(NamedTuple):
    """A report on a chart.

    Attributes:
        across: Bytes, or seconds since 1970.
        measure: Of the chart's metric.
    """

    row: Row
    across: float
    measure: Measure

    @property
    def goodness(self) -> float:
        """The more the better."""
        retained = self.measure.retention
        return retained if self.measure.higher_is_better else -retained


class Point(NamedTuple):
    """A checkpoint on the chart of sizes.

    Attributes:
        front: Whether none is both smaller and better.
        label: None where no room is left.
    """

    row: Row
    measure: Measure
    x: float
    y: float
    front: bool
    label: Label | None


class SizeChart(NamedTuple):
    """Size against accuracy of one family.

    Attributes:
        metric: What is retained.
        points: The largest first.
        front: Path of the Pareto front.
        limits: Heights of what retention is held to.
        original: Height of the original, which retains all of itself.
        beside: What stands to the right of these lines.
        unit: In which sizes are shown.
    """

    metric: str
    higher_is_better: bool
    points: tuple[Point, ...]
    front: str
    limits: tuple[float, ...]
    original: float
    beside: tuple[Label, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    unit: str


class History(NamedTuple):
    """What a checkpoint retained over time.

    Attributes:
        line: Path through all of its reports.
        limit: Path of the limit that each was held to; empty without one.
        marks: Path of the marks of each outcome.
        first, last: Dates at the ends of the axis.
    """

    line: str
    limit: str
    marks: dict[str, str]
    up: tuple[Tick, ...]
    first: str
    last: str


def size_chart(figures: Sequence[Figure], axis: Axis) -> SizeChart:
    """The chart of one family; of more than have room the Pareto front, and the first others.

    Args:
        figures: Of one metric, by bytes.
        axis: Upright, as `upright` makes it.
    """
    best = front(figures)
    drawn = list(dict.fromkeys([*best, *figures]))[:MOST_POINTS]
    placed = sorted(drawn, key=lambda figure: (-figure.across, figure.row.checkpoint))
    across = axes.linear([figure.across for figure in placed], FRAME.left, FRAME.right)
    unit, name = (1e9, "GB") if across.high >= 1e9 else (1e6, "MB")
    at = {
        figure: (across.at(figure.across), axis.at(figure.measure.retention)) for figure in placed
    }
    limits = [axis.at(limit) for limit in _limits(placed)]
    beside = _beside(
        {1.0: "original"} | {held: f"limit {held:.4g}" for held in _limits(placed)}, axis
    )
    area = Box(FRAME.left, FRAME.top - LINE, FRAME.width, FRAME.bottom)
    names = [figure.row.checkpoint for figure in placed]
    written = labels(names, list(at.values()), area, list(map(extent, beside)))
    return SizeChart(
        metric=placed[0].measure.metric,
        higher_is_better=placed[0].measure.higher_is_better,
        points=tuple(
            Point(figure.row, figure.measure, *at[figure], figure in best, label)
            for figure, label in zip(placed, written, strict=True)
        ),
        front=_stairs([at[figure] for figure in best if figure in at]),
        limits=tuple(limits),
        original=axis.at(1.0),
        beside=tuple(beside),
        across=across.ticks(unit),
        up=axis.ticks(),
        unit=name,
    )


def upright(figures: Sequence[Figure], frame: Frame) -> Axis:
    """The upright axis for these figures, which are of the same metric."""
    values = [figure.measure.retention for figure in figures]
    limits = _limits(figures)
    higher = figures[0].measure.higher_is_better
    return axes.better_up(values, limits, higher, frame.bottom, frame.top)


def front(figures: Iterable[Figure]) -> list[Figure]:
    """The Pareto front, the smallest first: none is smaller without keeping less."""
    found: list[Figure] = []
    # Of two that are equal in both, the first by name.
    for figure in sorted(figures, key=lambda f: (f.across, -f.goodness, f.row.checkpoint)):
        if not found or figure.goodness > found[-1].goodness:
            found.append(figure)
    return found


def history(figures: Sequence[Figure], axis: Axis, span: tuple[Row, Row]) -> History:
    """The chart of one checkpoint.

    Args:
        figures: Of one metric, by time, the oldest first.
        axis: Upright, of the small frame.
        span: The oldest and the newest report that charts beside it show.
    """
    start, end = SMALL_FRAME.left + RADIUS, SMALL_FRAME.right - RADIUS
    first, last = (row.moment or 0.0 for row in span)
    time = Axis(first, max(last, first + 1), start, end)
    at = [(time.at(figure.across), axis.at(figure.measure.retention)) for figure in figures]
    marks: dict[str, str] = {}
    limits = []
    for figure, (x, y) in zip(figures, at, strict=True):
        outcome, limit = figure.row.outcome, figure.measure.limit
        marks[outcome] = marks.get(outcome, "") + _MARKS[outcome].format(x=x, y=y)
        if limit is not None:
            limits.append((x, axis.at(limit)))
    return History(
        line=f"M{'L'.join(f'{x} {y}' for x, y in at)}",
        limit=f"M{start} {limits[0][1]}{_steps(limits)}H{end}" if limits else "",
        marks=marks,
        up=axis.ticks(),
        first=span[0].date[:10],
        last=span[1].date[:10],
    )


_MARKS = {
    "pass": "M{x} {y}m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "fail": "M{x} {y}m-3.5 -3.5l7 7m0 -7l-7 7",
    "inconclusive": "M{x} {y}m0 -4.5l4.5 8h-9z",
}


def _limits(figures: Iterable[Figure]) -> set[float]:
    return {figure.measure.limit for figure in figures if figure.measure.limit is not None}


def _beside(names: Mapping[float, str], axis: Axis) -> list[Label]:
    """Names to the right of the plot at their figures, below each other where these are close."""
    found: list[Label] = []
    lowest = -math.inf
    for y, text in sorted((axis.at(value) + 4, text) for value, text in names.items()):
        lowest = max(y, lowest + LINE)
        found.append(Label(FRAME.right + 6, lowest, "start", text))
    return found


def _stairs(at: Sequence[tuple[float, float]]) -> str:
    """From the smallest: what a larger size buys begins at that size."""
    return f"M{at[0][0]} {at[0][1]}{_steps(at[1:])}" if len(at) > 1 else ""


def _steps(at: Iterable[tuple[float, float]]) -> str:
    """To each place sideways first."""
    return "".join(f"H{x}V{y}" for x, y in at)
