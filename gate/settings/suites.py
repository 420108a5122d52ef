"""Suites: metrics in groups, what each group decides, and which is asked when another cannot tell.

A suite has one metric that decides. Several of them, measured on the same documents, would only
raise the chance that one fails by accident.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gate.settings.metrics import (
    Limit,
    Metric,
    Part,
    PerplexityMetric,
    TaggedMetric,
    TaskMetric,
)

Combine = Literal["each", "mean"]

FLOOR = Decimal("0.90")
"""What a suite must keep of the baseline's score where another figure decides.

Source: docs/statistics.md; twice the loss that a limit of 0.95 allows.
"""


class Suite(Part):
    """Metrics that belong together, on tasks or a text of their own.

    Attributes:
        name: What reports call it.
        metrics: On tasks or texts that no other suite has. One of them decides: the one with a
            limit, under `combine: mean` the first of a task.
        tier: `gating` decides; the limits of an `advisory` suite are only shown.
        floor: Share of the baseline's score that it must keep where it does not decide alone: under
            `combine: mean`, and together with another suite.
        escalate_to: The suite that is run, too, when this one is borderline; both are then decided
            together. That suite is not run otherwise.
        budget_s: Most seconds for this suite when another escalates to it; left out, no limit.
    """

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
    metrics: Annotated[tuple[TaggedMetric, ...], Field(min_length=1)]
    tier: Literal["gating", "advisory"] = "gating"
    floor: Annotated[Limit, Field(le=1)] = FLOOR
    escalate_to: str | None = None
    budget_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its tasks, each once."""
        named = (metric.task for metric in self.metrics if isinstance(metric, TaskMetric))
        return tuple(dict.fromkeys(named))

    @property
    def figure(self) -> TaskMetric | None:
        """Its metric of a task with a limit, else its first one; None for a suite of texts."""
        tasks = [metric for metric in self.metrics if isinstance(metric, TaskMetric)]
        return next((metric for metric in tasks if metric.gates), next(iter(tasks), None))


def require_consistent(suites: Sequence[Suite], combine: Combine) -> None:
    """What no suite shows by itself.

    Raises:
        ValueError: Two suites share a name, a task or a text, a gating one has another number of
            deciding metrics than one, or a suite escalates to one that cannot take it.
    """
    names = Counter(suite.name for suite in suites)
    tasks = Counter(task for suite in suites for task in suite.tasks)
    texts = Counter(
        metric.perplexity.label
        for suite in suites
        for metric in suite.metrics
        if isinstance(metric, PerplexityMetric)
    )
    for what, counted in (("name", names), ("task", tasks), ("text", texts)):
        for value, count in counted.items():
            if count > 1:
                raise ValueError(f"the {what} {value} occurs in {count} suites or twice in one")
    for suite in suites:
        if suite.tier == "gating":
            _require_one_decides(suite, combine)
    averaged = [suite for suite in suites if suite.tier == "gating" and suite.figure is not None]
    if combine == "mean" and len(averaged) < 2:
        raise ValueError("combine: mean needs two gating suites with tasks")
    _require_escalations(suites, combine)


def flattened(suites: Sequence[Suite], combine: Combine) -> tuple[Metric, ...]:
    """Every metric of every suite; only those that decide have a limit."""
    return tuple(metric for suite in suites for metric in _flattened(suite, combine))


def _flattened(suite: Suite, combine: Combine) -> Iterator[Metric]:
    for metric in suite.metrics:
        if suite.tier == "advisory":
            yield _without_limits(metric)
        elif combine == "mean" and metric is suite.figure:
            # What no suite may fall below is decided as any limit is; the mean comes on top.
            yield metric.model_copy(update={"min_retention": suite.floor})
        else:
            yield metric


def _without_limits(metric: Metric) -> Metric:
    """The same metric, advisory."""
    if isinstance(metric, PerplexityMetric):
        return metric.model_copy(update={"max_ratio": None, "max_kl": None, "min_same_top": None})
    return metric.model_copy(update={"min_retention": None, "min_score": None})


def _require_one_decides(suite: Suite, combine: Combine) -> None:
    tasks = [metric for metric in suite.metrics if isinstance(metric, TaskMetric)]
    texts = [metric for metric in suite.metrics if isinstance(metric, PerplexityMetric)]
    limited = [metric for metric in tasks if metric.gates]
    deciding = len(limited) + sum(
        limit is not None
        for text in texts
        for limit in (text.max_ratio, text.max_kl, text.min_same_top)
    )
    if combine == "mean" and tasks:
        if any(metric.min_retention is not None for metric in tasks):
            raise ValueError(
                f"suite {suite.name} has a min_retention, which combine: mean does not use; "
                "state a floor"
            )
        if suite.figure is not None and suite.figure.metric is None:
            raise ValueError(f"suite {suite.name}: its first task must name the metric that counts")
        deciding += not limited
    if deciding != 1:
        raise ValueError(
            f"suite {suite.name} has {deciding or 'no'} metrics with a limit; a gating suite "
            "decides by one"
        )


def _require_escalations(suites: Sequence[Suite], combine: Combine) -> None:
    known = {suite.name: suite for suite in suites}
    targets = Counter(suite.escalate_to for suite in suites if suite.escalate_to is not None)
    if targets and combine == "mean":
        raise ValueError("escalate_to belongs to combine: each")
    for suite in suites:
        if suite.budget_s is not None and suite.name not in targets:
            raise ValueError(f"suite {suite.name} has a budget_s, but no suite escalates to it")
        if suite.escalate_to is None:
            continue
        name = f"suite {suite.name} escalates to {suite.escalate_to}"
        target = known.get(suite.escalate_to)
        if target is None:
            raise ValueError(f"{name}, which is no suite")
        if target is suite or target.escalate_to is not None:
            raise ValueError(f"{name}, which escalates itself; name a suite that does not")
        if targets[target.name] > 1:
            raise ValueError(f"{name}, and so does another suite; give each its own")
        for part in (suite, target):
            _require_poolable(part, name)


def _require_poolable(suite: Suite, name: str) -> None:
    """Losses can be added where a suite has a share of a task's points to keep."""
    limit = suite.figure.min_retention if suite.figure is not None else None
    if suite.tier != "gating" or limit is None:
        raise ValueError(f"{name}; {suite.name} needs tier: gating and a min_retention")
    if suite.floor > limit:
        raise ValueError(f"{name}; the floor of {suite.name} is above its min_retention of {limit}")
