"""Stop a task as soon as the verdict on all of its documents is settled.

What the baseline scored is known for every document, and the candidate's documents come in a random
order that hangs on the suite and on the candidate's bytes, so the guarantee of `stats.sequential`
holds for each gating metric.
"""

import time
from collections.abc import Mapping, Sequence
from fractions import Fraction

from gate.records import EarlyStop, EvalResult, ScoredDocument, TaskResult
from gate.settings import Settings, TaskMetric
from gate.stats import paired
from gate.stats.sequential import Bounds, Sequential, Settled

ALPHA = 0.01
"""Probability that the full run would have decided otherwise, for PASS and for FAIL each."""

LONG = 1000
"""Documents of a task from which `auto` stops on a PASS, too: a shorter one shows its figure."""


class Gating:
    """One gating metric, fed with the candidate's scores in committed order.

    Args:
        metric: With its limit.
        baseline: Its stored result.
        order: Document ids, all of them.
        gating: How many metrics gate; a FAIL of any fails the run, so they share its probability.
        alpha: 0 where nothing but certainty will do.
    """

    def __init__(
        self,
        metric: TaskMetric,
        baseline: TaskResult,
        order: Sequence[int],
        gating: int,
        alpha: float = ALPHA,
    ) -> None:
        assert metric.gates, "an advisory metric decides nothing"
        self.name = baseline.metric, baseline.filter
        self.settled: Settled | None = None
        samples = {sample.doc_id: sample for sample in baseline.samples}
        scores = [samples[doc_id].score for doc_id in order]
        try:
            self._sequential: Sequential | None = Sequential(
                scores,
                [Bounds(0, samples[doc_id].weight) for doc_id in order],
                allowance(metric, baseline),
                whole=all(score.is_integer() for score in scores),
                higher_is_better=baseline.higher_is_better,
                alpha_pass=alpha,
                alpha_fail=alpha / gating,
            )
        except (ValueError, OverflowError):
            # Not a share of points that can be reached, or no number: only the full run tells.
            self._sequential = None

    def add(self, score: float) -> None:
        """The next document's score."""
        if self._sequential is None or self.settled is not None:
            return
        try:
            self.settled = self._sequential.add(score)
        except ValueError:
            self._sequential = None


class Stopping:
    """The gating metrics of a run; fulfils `evaluate.StopRule`.

    Args:
        settings: What gates, and when a task may end.
        baseline: The stored result.
        orders: Task to its documents in committed order.
    """

    def __init__(
        self,
        settings: Settings,
        baseline: EvalResult,
        orders: Mapping[str, Sequence[int]],
    ) -> None:
        self._settings = settings
        self._fed = dict.fromkeys(orders, 0)
        self._n = {task: len(order) for task, order in orders.items()}
        gating = gating_metrics(settings, baseline)
        self._metrics: dict[str, list[Gating]] = {task: [] for task in orders}
        for metric, result in gating:
            order = orders[metric.task]
            alpha = 0.0 if settings.early_stop == "certain" else ALPHA
            made = Gating(binding(settings, metric), result, order, len(gating), alpha)
            self._metrics[metric.task].append(made)

    def decided(self, task: str, documents: Sequence[ScoredDocument]) -> EarlyStop | None:
        """Why the rest of a task is not needed.

        Args:
            documents: All that were scored so far, in committed order.
        """
        if self._settings.early_stop == "off":
            return None
        metrics = self._metrics[task]
        for document in documents[self._fed[task] :]:
            scores = {(point.metric, point.filter): point.score for point in document.points}
            for metric in metrics:
                metric.add(scores[metric.name])
        self._fed[task] = len(documents)
        if len(documents) == self._n[task]:
            return None
        found = [metric.settled for metric in metrics if metric.settled is not None]
        failed = [settled for settled in found if settled.outcome == "fail"]
        # What is settled is the figure's side of the limit, not how close it will be.
        if failed and self._settings.borderline != "inconclusive":
            return self._stop(task, failed[0])
        if found and len(found) == len(metrics) and self._ends_on_pass(task):
            return self._stop(task, min(found, key=lambda settled: settled.evidence))
        return None

    def _ends_on_pass(self, task: str) -> bool:
        """Whether a PASS of the task's own metrics is all that is asked of it."""
        settings = self._settings
        long = settings.early_stop != "auto" or self._n[task] > LONG
        alone = settings.combine == "each" and not _pooled(settings, task)
        # What passed last was asked other documents first: only all of them are compared with it.
        alone = alone and settings.max_drop_vs_released is None
        return long and alone and settings.borderline in {"point", "escalate"}

    def _stop(self, task: str, settled: Settled) -> EarlyStop:
        sure = "nothing can change it" if settled.certain else f"{100 * (1 - ALPHA):.0f} % sure"
        return EarlyStop(
            reason=f"{settled.outcome.upper()} of the whole task, {sure}",
            n_planned=self._n[task],
            outcome=settled.outcome,
            certain=settled.certain,
        )


class Within:
    """A stop rule and a time after which a task ends whatever that says; fulfils `StopRule`.

    Args:
        rule: Asked first; None for the time alone.
        seconds: From now.
        n_planned: Documents of the task.
    """

    def __init__(self, rule: Stopping | None, seconds: float, n_planned: int) -> None:
        self._rule, self._n_planned = rule, n_planned
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def decided(self, task: str, documents: Sequence[ScoredDocument]) -> EarlyStop | None:
        """As the rule says, or that the time is up."""
        settled = self._rule.decided(task, documents) if self._rule is not None else None
        if settled is not None or time.monotonic() < self._end:
            return settled
        if len(documents) == self._n_planned:
            return None
        return EarlyStop(
            reason=f"the {self._seconds:,.0f} s that it may take were up",
            n_planned=self._n_planned,
            outcome=None,
            certain=False,
        )


def allowance(metric: TaskMetric, baseline: TaskResult) -> Fraction:
    """The points that may be lost net by the stricter of a metric's limits, without rounding.

    A score that must be reached, whatever the baseline has, is a number of points like any other.

    Raises:
        ValueError, OverflowError: A score of the baseline is not a number.
    """
    reached = paired.total([sample.score for sample in baseline.samples])
    found = []
    if metric.min_retention is not None:
        found.append(paired.allowance(reached, metric.min_retention))
    if metric.min_score is not None:
        possible = paired.total([sample.weight for sample in baseline.samples])
        found.append(Fraction(reached) - Fraction(metric.min_score) * Fraction(possible))
    return min(found)


def binding(settings: Settings, metric: TaskMetric) -> TaskMetric:
    """The metric with the limit below which its task fails whatever else is measured.

    A suite that is decided together with another may miss its own limit, not its floor.
    """
    suite = settings.suite_of(metric.task)
    if suite is None or metric.min_retention is None or not _pooled(settings, metric.task):
        return metric
    return metric.model_copy(update={"min_retention": min(suite.floor, metric.min_retention)})


def _pooled(settings: Settings, task: str) -> bool:
    """Whether a task's suite may be decided together with another."""
    return any(task in suite.tasks for pair in settings.escalations for suite in pair)


def gating_metrics(settings: Settings, baseline: EvalResult) -> list[tuple[TaskMetric, TaskResult]]:
    """The task metrics that gate, each with its stored result."""
    found = (
        (metric, baseline.task(metric.task, metric.metric, metric.filter))
        for metric in settings.task_metrics
        if metric.gates and metric.metric is not None
    )
    return [(metric, result) for metric, result in found if result is not None]


def settled(
    metric: TaskMetric,
    baseline: TaskResult,
    candidate: TaskResult,
    order: Sequence[int],
    gating: int,
) -> Settled | None:
    """What a task that was stopped early settled for one of its metrics, worked out anew.

    Where it was stopped for certainty, evidence does not count: that hangs on the order, and
    `early_stop: certain` promises that nothing does.
    """
    stopped = candidate.early_stop
    assert stopped is not None, "a task that was not stopped is decided by its rule"
    run = Gating(metric, baseline, order, gating, 0.0 if stopped.certain else ALPHA)
    scores = {sample.doc_id: sample.score for sample in candidate.samples}
    for doc_id in order:
        if doc_id not in scores:
            break
        run.add(scores[doc_id])
    return run.settled
