"""Several suites as one figure: the losses of two added up, or the mean of all.

Both are decided beforehand and come on top of the suites' floors: no suite may be lost to another.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from gate import stopping
from gate.records import Comparison, EvalResult, TaskResult
from gate.settings import Settings, Suite, TaskMetric
from gate.stats import paired
from gate.verdict.outcome import finite, judged, straddles
from gate.verdict.sentences import points
from gate.verdict.tasks import Early, compare_task, paired_results

Key = tuple[str, str]
"""Task and metric of a comparison."""

POOLED = "pooled"
MEAN = "mean"
TOGETHER = frozenset({POOLED, MEAN})
"""What stands for the task where suites are decided together."""


def pooled_name(pair: tuple[Suite, Suite]) -> str:
    """What the comparison of two suites together is called."""
    return "+".join(suite.name for suite in pair)


class Figure(NamedTuple):
    """What one suite is decided by, measured to its end or stopped.

    Attributes:
        metric: With its own limit.
    """

    suite: Suite
    metric: TaskMetric
    baseline: TaskResult
    candidate: TaskResult
    comparison: Comparison

    @property
    def whole(self) -> bool:
        """Whether every document was asked."""
        return self.candidate.early_stop is None


def pooled(first: Figure, second: Figure) -> Comparison:
    """Two suites by their losses: PASS where both together lost no more than both may.

    Each suite's budget is that of its own limit, so the one with more points counts for more.
    """
    base = [s.score for figure in (first, second) for s in figure.baseline.samples]
    scores = [s.score for figure in (first, second) for s in figure.candidate.samples]
    budgets = [figure.comparison.budget or 0 for figure in (first, second)]
    losses = math.fsum(figure.comparison.losses or 0.0 for figure in (first, second))
    gains = math.fsum(figure.comparison.gains or 0.0 for figure in (first, second))
    changes = [figure.comparison.net_loss for figure in (first, second)]
    net = math.fsum(math.nan if change is None else change for change in changes)
    reached = math.fsum(base)
    possible = math.fsum(s.weight for f in (first, second) for s in f.baseline.samples)
    interval = paired.retention_interval(scores, base)
    limits = {first.metric.min_retention, second.metric.min_retention}
    limit = limits.pop()
    if limits or limit is None:
        limit = Decimal(1 - sum(budgets) / reached).quantize(Decimal("0.0001"))
    passed = net <= sum(budgets)
    return Comparison(
        task=POOLED,
        metric=pooled_name((first.suite, second.suite)),
        baseline=reached / possible,
        candidate=(reached - net) / possible,
        delta=-net / possible,
        retention=1 - net / reached,
        ci_low=finite(interval.low),
        ci_high=finite(interval.high),
        threshold=limit,
        n=len(base),
        budget=sum(budgets),
        net_loss=net,
        losses=losses,
        gains=gains,
        flips=paired.change(scores, base).flips,
        noise=finite(paired.noise_band(scores, base)),
        method="points lost net by both suites <= the sum of both budgets",
        outcome=judged(passed),
        borderline=straddles(interval, limit),
        reason=(
            f"{first.suite.name} was borderline, so {second.suite.name} was run too: both may lose "
            f"{points(float(sum(budgets)))} net, lost {points(net)} "
            f"({' + '.join(points(change or 0.0) for change in changes)})"
        ),
    )


def mean(figures: Sequence[Figure], limit: Decimal) -> Comparison | None:
    """The mean of the suites' retentions; None where one was not measured to its end.

    Every suite counts the same, however many documents it has.
    """
    if not figures or not all(figure.whole for figure in figures):
        return None
    kept = [_kept(figure) for figure in figures]
    value = math.fsum(kept) / len(kept)
    # What each suite's interval says of its spread; suites ask different documents.
    half = math.hypot(*(_half(figure.comparison) for figure in figures)) / len(figures)
    interval = paired.Interval(value, value - half, value + half)
    each = ", ".join(
        f"{figure.suite.name} {share:.3f}" for figure, share in zip(figures, kept, strict=True)
    )
    return Comparison(
        task=MEAN,
        metric="+".join(figure.suite.name for figure in figures),
        baseline=1.0,
        candidate=value,
        delta=value - 1,
        retention=value,
        ci_low=finite(interval.low),
        ci_high=finite(interval.high),
        threshold=limit,
        n=sum(figure.comparison.n for figure in figures),
        method="mean of the suites' retentions >= min_mean_retention",
        outcome=judged(_reaches(figures, limit)),
        borderline=straddles(interval, limit),
        reason=(
            f"on average the suites keep {value:.4f} of the baseline ({each}); at least {limit} is "
            "required"
        ),
    )


def _kept(figure: Figure) -> float:
    """The share of the baseline that is kept; of an error rate, what it did not grow by."""
    retention = figure.comparison.retention
    return retention if figure.baseline.higher_is_better else 2 - retention


def _reaches(figures: Sequence[Figure], limit: Decimal) -> bool:
    """The rule in exact fractions; False as soon as a score is not a number."""
    total = Fraction(0)
    for figure in figures:
        base = paired.total([sample.score for sample in figure.baseline.samples])
        net = figure.comparison.net_loss
        if net is None or not math.isfinite(net) or not base > 0:
            return False
        total += 1 - Fraction(net) / Fraction(base)
    return total >= Fraction(limit) * len(figures)


def _half(comparison: Comparison) -> float:
    low, high = comparison.ci_low, comparison.ci_high
    return math.nan if low is None or high is None else (high - low) / 2


def combined(
    settings: Settings,
    baseline: EvalResult,
    candidate: EvalResult,
    found: Mapping[Key, Comparison],
    early: Early,
) -> list[Comparison]:
    """The comparisons with what the settings make of several suites together.

    Args:
        found: Every metric of the settings by itself.
        early: What the verdict on a task that was stopped hangs on.
    """
    comparisons = dict(found)
    figures = _figures(settings, baseline, candidate, found)
    for one, other in settings.escalations:
        first, second = figures.get(one.name), figures.get(other.name)
        if first is None or second is None:
            continue
        if first.comparison.borderline and first.whole and second.whole:
            for figure in (first, second):
                bound = stopping.binding(settings, figure.metric)
                floor = compare_task(bound, figure.baseline, figure.candidate, early)
                comparisons[floor.task, floor.metric] = floor
            both = pooled(first, second)
            comparisons[both.task, both.metric] = both
        elif second.whole:
            # Measured all the same, for example as a stored result: the first one decides alone.
            key = second.comparison.task, second.comparison.metric
            unlimited = second.metric.model_copy(update={"min_retention": None, "min_score": None})
            comparisons[key] = compare_task(unlimited, second.baseline, second.candidate, early)
    if settings.min_mean_retention is not None:
        wanted = [suite for suite in settings.suites if suite.tier == "gating" and suite.tasks]
        if all(suite.name in figures for suite in wanted):
            made = mean([figures[suite.name] for suite in wanted], settings.min_mean_retention)
            if made is not None:
                comparisons[made.task, made.metric] = made
    return list(comparisons.values())


def _figures(
    settings: Settings,
    baseline: EvalResult,
    candidate: EvalResult,
    found: Mapping[Key, Comparison],
) -> dict[str, Figure]:
    """Suite to what decides it, for the suites that were measured."""
    figures: dict[str, Figure] = {}
    for metric in settings.task_metrics:
        suite = settings.suite_of(metric.task)
        if suite is None or not metric.gates:
            continue
        for base, result in paired_results(metric, baseline, candidate):
            comparison = found[result.task, result.label]
            figures[suite.name] = Figure(suite, metric, base, result, comparison)
    return figures
