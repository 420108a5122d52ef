"""Reports by the model that they come from, by checkpoint, and by format."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from gate.dashboard.charts import (
    FRAME,
    SMALL_FRAME,
    Figure,
    History,
    SizeChart,
    history,
    size_chart,
    upright,
)
from gate.dashboard.rows import NO_FAMILY, Row

MOST_FAMILIES = 20
MOST_CHECKPOINTS = 60
"""Of a family, that have a line in its table and a chart; all others are in the last table."""

MOST_FORMATS = 200
"""Rows of the table of formats: those with the most reports."""

MOST_CHARTS = 2
"""Of a family: a checkpoint that fails by its perplexity has no figure of a task."""


class Checkpoint(NamedTuple):
    """One checkpoint as it is now, and as it was.

    Attributes:
        newest: Its newest report.
        runs, failed: How many reports there are, and how many of a FAIL.
        history: Of the first metric of the newest report; None with fewer than two reports that
            have a date and a figure of it.
        low, high: What was retained in these.
    """

    newest: Row
    runs: int
    failed: int
    history: History | None
    low: float | None
    high: float | None


class Family(NamedTuple):
    """Checkpoints that were made from the same model.

    Attributes:
        metrics: How many metrics the table of checkpoints shows.
        charts: Of the metrics that most checkpoints have.
        elsewhere: How many checkpoints are on none of them.
        checkpoints: Those that are not releasable first, then by name.
        more: How many checkpoints beyond these.
    """

    name: str
    metrics: int
    charts: tuple[SizeChart, ...]
    elsewhere: int
    checkpoints: tuple[Checkpoint, ...]
    more: int


class FormatFigures(NamedTuple):
    """What became of one format in one family.

    Attributes:
        metric: Of which the median is; the most frequent one.
        retention: Median.
        saving: Median of how many times smaller than the original.
    """

    format: str
    family: str
    runs: int
    passed: int
    metric: str
    retention: float | None
    saving: float | None


def newest(rows: Iterable[Row]) -> list[Row]:
    """The report of each checkpoint that says how it is now, the newest of all first."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=attrgetter("standing"), reverse=True):
        found.setdefault(row.checkpoint, row)
    return sorted(found.values(), key=attrgetter("age"), reverse=True)


def families(rows: Sequence[Row]) -> list[Family]:
    """Each family with its charts, the one with the newest report first.

    What has no baseline comes last.
    """
    latest = newest(rows)
    by_checkpoint: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=attrgetter("age")):
        by_checkpoint[row.checkpoint].append(row)
    # A checkpoint belongs where its newest report says.
    members: dict[str, list[Row]] = defaultdict(list)
    for row in latest:
        members[row.family].append(row)
    names = sorted(members, key=lambda name: name == NO_FAMILY)
    return [_family(name, members[name], by_checkpoint) for name in names]


def _family(name: str, latest: Sequence[Row], runs: dict[str, list[Row]]) -> Family:
    charts = [size_chart(figures, upright(figures, FRAME)) for figures in _figures(latest)]
    charted = {point.row.checkpoint for chart in charts for point in chart.points}
    shown = sorted(latest, key=lambda row: (not row.obstacle, row.checkpoint))[:MOST_CHECKPOINTS]
    return Family(
        name=name,
        metrics=len({row.first.metric for row in shown if row.first}),
        charts=tuple(charts),
        elsewhere=len(latest) - len(charted),
        checkpoints=tuple(_checkpoints(shown, runs)),
        more=len(latest) - len(shown),
    )


def _figures(latest: Sequence[Row]) -> Iterator[list[Figure]]:
    """What the charts of sizes show: the metrics that most checkpoints have, one each."""
    for metric in _usual(latest)[:MOST_CHARTS]:
        found = [
            Figure(row, row.stored_bytes, measure)
            for row in latest
            if row.stored_bytes and (measure := row.measure(metric))
        ]
        # A metric has one direction, unless settings say otherwise of it: then the newest counts.
        higher = found[0].measure.higher_is_better if found else True
        alike = [figure for figure in found if figure.measure.higher_is_better == higher]
        if alike:
            yield alike


def _checkpoints(shown: Sequence[Row], runs: dict[str, list[Row]]) -> Iterator[Checkpoint]:
    """Each with its history; those of the same metric have the same axes."""
    series = {row.checkpoint: _series(row, runs[row.checkpoint]) for row in shown}
    together: dict[tuple[str, bool], list[Figure]] = defaultdict(list)
    for found in series.values():
        for figure in found:
            together[figure.measure.metric, figure.measure.higher_is_better].append(figure)
    axes = {kind: upright(found, SMALL_FRAME) for kind, found in together.items()}
    by_age = attrgetter("age")
    dated = [figure.row for found in series.values() for figure in found]
    span = (min(dated, key=by_age), max(dated, key=by_age)) if dated else None
    for row in shown:
        found, kept = series[row.checkpoint], runs[row.checkpoint]
        drawn = None
        if len(found) > 1 and row.first and span:
            axis = axes[row.first.metric, row.first.higher_is_better]
            drawn = history(found, axis, span)
        yield Checkpoint(
            newest=row,
            runs=len(kept),
            failed=sum(run.outcome == "fail" for run in kept),
            history=drawn,
            low=min((figure.measure.retention for figure in found), default=None),
            high=max((figure.measure.retention for figure in found), default=None),
        )


def _series(newest: Row, runs: Sequence[Row]) -> list[Figure]:
    """The reports that have a date, and a figure of the metric that the newest shows.

    Without proposals, unless there is nothing else.
    """
    first = newest.first
    return [
        Figure(row, row.moment, measure)
        for row in runs
        if first is not None
        and row.moment is not None
        and row.proposed == newest.proposed
        and (measure := row.measure(first.metric))
        and measure.higher_is_better == first.higher_is_better
    ]


def formats(rows: Iterable[Row]) -> list[FormatFigures]:
    """Every format in every family, by name; of too many those with the most reports."""
    key = attrgetter("format", "family")
    made = [
        _format(*names, list(found)) for names, found in groupby(sorted(rows, key=key), key=key)
    ]
    most = set(sorted(made, key=lambda found: -found.runs)[:MOST_FORMATS])
    return [found for found in made if found in most]


def _format(name: str, family: str, rows: Sequence[Row]) -> FormatFigures:
    metric = next(iter(_usual(rows)), "")
    kept = [measure.retention for row in rows if (measure := row.measure(metric))]
    savings = [row.saving for row in rows if row.saving is not None]
    return FormatFigures(
        format=name,
        family=family,
        runs=len(rows),
        passed=sum(row.outcome == "pass" for row in rows),
        metric=metric,
        retention=median(kept) if kept else None,
        saving=median(savings) if savings else None,
    )


def _usual(rows: Sequence[Row]) -> list[str]:
    """Every metric, the one that most of them have first; of equals the one that most show."""
    counts = Counter(measure.metric for row in rows for measure in row.measures)
    first = Counter(row.first.metric for row in rows if row.first)
    return sorted(counts, key=lambda metric: (-counts[metric], -first[metric], metric))
