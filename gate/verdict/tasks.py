"""Tasks: no more points lost net than the limit allows."""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, Self

from gate import batching, stopping
from gate.errors import BaselineMismatchError, SettingsError
from gate.records import (
    Comparison,
    EvalResult,
    Outcome,
    SampleScore,
    TaskResult,
)
from gate.settings import Settings, TaskMetric
from gate.stats import paired
from gate.verdict.outcome import finite, judged, straddles
from gate.verdict.sentences import (
    budget_sentence,
    early_sentence,
    missing,
)


def paired_results(
    metric: TaskMetric, baseline: EvalResult, candidate: EvalResult
) -> Iterator[tuple[TaskResult, TaskResult]]:
    """The results that a metric of the settings means: one, or all of its task's."""
    if metric.metric is None:
        results = [result for result in candidate.tasks if result.task == metric.task]
    else:
        named = candidate.task(metric.task, metric.metric, metric.filter)
        results = [named] if named else []
    if not results:
        known = ", ".join(r.label for r in candidate.tasks if r.task == metric.task) or "none"
        raise SettingsError(
            f"task {metric.task} gave no metric {metric.metric or ''}; it has: {known}",
            "Name one of its metrics in quant-gate.yaml.",
        )
    for result in results:
        base = baseline.task(result.task, result.metric, result.filter)
        if base is None:
            raise missing(baseline, f"{result.task} {result.label}")
        yield base, result


class Early(NamedTuple):
    """What the verdict on a task that was stopped early hangs on.

    Attributes:
        seed: Of the order.
        gating: How many metrics gate.
        settings: Which say by which limit a task is stopped.
    """

    seed: str
    gating: int
    settings: Settings


class _Pairs(NamedTuple):
    """One metric of a task on the documents that both models were asked.

    Attributes:
        whole: The baseline on all documents: its points make the budget.
    """

    name: str
    whole: TaskResult
    base: TaskResult
    candidate: TaskResult
    moved: paired.Change
    interval: paired.Interval
    noise: float | None

    @classmethod
    def of(cls, whole: TaskResult, candidate: TaskResult) -> Self:
        name = f"{candidate.task} {candidate.label}"
        base = whole.beside(candidate)
        _require_pairs(name, base.samples, candidate.samples)
        b = [sample.score for sample in base.samples]
        c = [sample.score for sample in candidate.samples]
        moved = paired.change(c, b) if candidate.higher_is_better else paired.change(b, c)
        noise = finite(paired.noise_band(c, b)) if candidate.early_stop is None else None
        return cls(name, whole, base, candidate, moved, paired.retention_interval(c, b), noise)


class _Decision(NamedTuple):
    """What a limit makes of a metric; nothing for one without.

    Attributes:
        limit: The share to be kept, by which it was decided.
        min_score: The score to be reached, where that is the stricter limit.
    """

    limit: Decimal | None = None
    min_score: Decimal | None = None
    allowed: int | float | None = None
    outcome: Outcome | None = None
    borderline: bool = False
    reason: str | None = None


def compare_task(
    metric: TaskMetric, baseline: TaskResult, candidate: TaskResult, early: Early
) -> Comparison:
    """One metric of a task by the error budget."""
    pairs = _Pairs.of(baseline, candidate)
    base, moved, interval = pairs.base, pairs.moved, pairs.interval
    decision = _decision(metric, pairs, early)
    sentence = budget_sentence(
        pairs.name, decision.allowed, moved, interval.value, decision.min_score
    )
    return Comparison(
        task=candidate.task,
        metric=candidate.label,
        baseline=base.value,
        candidate=candidate.value,
        delta=candidate.value - base.value,
        retention=interval.value,
        ci_low=finite(interval.low),
        ci_high=finite(interval.high),
        threshold=decision.limit,
        min_score=decision.min_score,
        n=len(base.samples),
        budget=decision.allowed,
        higher_is_better=candidate.higher_is_better,
        net_loss=moved.net_loss,
        losses=moved.losses,
        gains=moved.gains,
        flips=moved.flips,
        noise=pairs.noise,
        method=(
            "points lost net <= (1 - min_retention) * the baseline's points"
            if decision.min_score is None
            else "points lost net <= what the baseline has beyond min_score"
        ),
        outcome=decision.outcome,
        borderline=decision.borderline,
        early_stop=candidate.early_stop,
        reason=decision.reason or sentence,
    )


def _decision(metric: TaskMetric, pairs: _Pairs, early: Early) -> _Decision:
    """The rule on all documents, or what it is settled to say of a task that was stopped."""
    candidate = pairs.candidate
    stopped = candidate.early_stop
    timed_out = stopped is not None and stopped.outcome is None
    if not metric.gates or timed_out:
        return _Decision()
    if stopped is not None:
        metric = stopping.binding(early.settings, metric)
    scores = [s.score for s in (*pairs.base.samples, *candidate.samples)]
    whole = all(score.is_integer() for score in scores if math.isfinite(score))
    exact = stopping.allowance(metric, pairs.whole)
    allowed = math.floor(exact) if whole else float(exact)
    limit, min_score = metric.min_retention, metric.min_score
    if min_score is not None and limit is not None:
        alone = metric.model_copy(update={"min_score": None})
        min_score = min_score if exact < stopping.allowance(alone, pairs.whole) else None
    if stopped is None:
        outcome = judged(pairs.moved.net_loss <= allowed)
        borderline = straddles(pairs.interval, _bound(exact, pairs.whole))
        return _Decision(limit, min_score, allowed, outcome, borderline)
    ids = [sample.doc_id for sample in pairs.whole.samples]
    order = batching.order(ids, early.seed, candidate.task)
    settled = stopping.settled(metric, pairs.whole, candidate, order, early.gating)
    asked_of = len(candidate.samples), stopped.n_planned
    reason = early_sentence(pairs.name, settled, pairs.moved, allowed, asked_of)
    outcome = settled.outcome if settled else "inconclusive"
    return _Decision(limit, min_score, allowed, outcome, False, reason)


def _bound(allowed: Fraction, baseline: TaskResult) -> float:
    """The retention at which nothing of the allowance is left; NaN for a baseline of nothing.

    An error rate is mirrored: where 0.95 is to be kept, 1.05 is the most it may be.
    """
    reached = paired.total([sample.score for sample in baseline.samples])
    if not reached > 0:
        return math.nan
    lost = float(allowed / Fraction(reached))
    return 1 - lost if baseline.higher_is_better else 1 + lost


def _require_pairs(
    name: str, baseline: Sequence[SampleScore], candidate: Sequence[SampleScore]
) -> None:
    """Both must hold the same documents, asked in the same words, in the same order."""
    hint = "Make the baseline again with these settings: gate eval REFERENCE -o BASELINE"
    for base, sample in zip(baseline, candidate, strict=False):
        for field, what in (("doc_hash", "is another one"), ("prompt_hash", "was asked otherwise")):
            theirs, ours = getattr(base, field), getattr(sample, field)
            if theirs != ours:
                raise BaselineMismatchError(
                    f"{name}: document {sample.doc_id} {what} in the baseline "
                    f"({field} {theirs[:12]}, here {ours[:12]})",
                    hint,
                )
    if len(baseline) != len(candidate):
        raise BaselineMismatchError(
            f"{name}: the baseline has {len(baseline)} documents, the candidate {len(candidate)}",
            hint,
        )
