"""Findings and comparisons become an outcome.

The deciding rule is the user's own, on all documents: no more points lost net than the limit
allows, no larger a perplexity ratio. Intervals are shown and decide nothing.
"""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple, Self

from gate import baseline as baselines
from gate import evaluate, stopping
from gate.errors import BaselineError, BaselineMismatchError, SettingsError
from gate.records import (
    CanaryAnswer,
    Comparison,
    EvalResult,
    LintResult,
    Outcome,
    SampleScore,
    TaskResult,
    Verdict,
)
from gate.settings import Borderline, PerplexityMetric, Settings, TaskMetric
from gate.stats import paired
from gate.stats.sequential import Settled

MIN_BUDGET = 5
"""Fewer points than this and one document's luck decides.

Source: docs/statistics.md; at a retention limit of 0.95 it asks for 100 points.
"""

PERPLEXITY = "perplexity"
"""What stands for the task in a comparison of perplexities."""

UNQUANTIZED_BITS = 16

MEASURE_MORE = (
    "Measure more documents or windows, or let the figure decide: borderline: point in "
    "quant-gate.yaml."
)


def compare(
    settings: Settings, baseline: EvalResult, candidate: EvalResult, weight_bits: int | None
) -> tuple[Comparison, ...]:
    """Every metric of the settings, candidate against baseline, in the settings' order.

    Args:
        weight_bits: What the candidate declares for its weights; None if unknown. An
            unquantized candidate counts as 16 bits.

    Raises:
        BaselineMismatchError: The baseline lacks a metric, or measured other documents.
        BaselineError: The baseline leaves too small a budget to gate on.
        SettingsError: A metric that the task does not have, or a limit that must be given.
    """
    check_budgets(settings, baseline)
    early = _Early(candidate.seed, len(stopping.gating_metrics(settings, baseline)))
    bits = UNQUANTIZED_BITS if candidate.format is None else weight_bits
    found: dict[tuple[str, str], Comparison] = {}
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            made = [_compare_perplexity(metric, baseline, candidate, bits)]
        else:
            made = [
                _compare_task(metric, base, result, early)
                for base, result in _paired_results(metric, baseline, candidate)
            ]
        for comparison in made:
            key = comparison.task, comparison.metric
            # A metric may come twice: by name with a limit, and among all of its task's.
            if key not in found or found[key].outcome is None:
                found[key] = comparison
    return tuple(_by_policy(comparison, settings.borderline) for comparison in found.values())


def check_budgets(settings: Settings, baseline: EvalResult) -> None:
    """Refuse to gate on so few points that chance decides. Needs no candidate.

    Raises:
        BaselineError: A gating metric's budget is under five points.
        BaselineMismatchError: The baseline lacks a gating metric.
    """
    for metric in settings.task_metrics:
        if metric.min_retention is None or metric.metric is None:
            continue
        result = baseline.task(metric.task, metric.metric, metric.filter)
        if result is None:
            raise _missing(baseline, f"{metric.task} {metric.metric}")
        points = paired.total([sample.score for sample in result.samples])
        name = f"{metric.task} {result.label}"
        if not math.isfinite(points):
            raise BaselineError(
                f"{name}: the baseline's score is not a number", _eval_hint(baseline)
            )
        allowed = paired.budget(points, metric.min_retention)
        if allowed >= MIN_BUDGET:
            continue
        needed = (
            math.ceil(MIN_BUDGET / (1 - metric.min_retention)) if metric.min_retention < 1 else 0
        )
        raise BaselineError(
            f"{name} cannot gate: the baseline has {_points(points)} points, of which "
            f"{metric.min_retention} must be kept, so {max(allowed, 0)} may be lost net; under "
            f"{MIN_BUDGET}, chance decides",
            (
                f"Evaluate more documents (the baseline needs {needed} points), "
                if needed
                else "Ask for less than the whole baseline, "
            )
            + "or remove min_retention, which makes the metric advisory.",
        )


def ratio_limit(metric: PerplexityMetric, weight_bits: int | None) -> Decimal | None:
    """The perplexity ratio that is allowed; None for an advisory metric.

    `by-weight-bits` is a tripwire: published NF4 and NVFP4 of Llama-3.1-8B lie at 1.05 and 1.10.

    Raises:
        SettingsError: Below four bits, or unknown ones: there is no usual loss.
    """
    if metric.max_ratio is None or isinstance(metric.max_ratio, Decimal):
        return metric.max_ratio
    if weight_bits is not None and weight_bits >= 8:
        return Decimal("1.02")
    if weight_bits is not None and weight_bits >= 4:
        return Decimal("1.15")
    bits = "an unknown number of" if weight_bits is None else str(weight_bits)
    raise SettingsError(
        f"perplexity on {metric.perplexity.label}: no usual limit is known for weights "
        f"of {bits} bits",
        "Give a number for max_ratio in quant-gate.yaml, for example 1.5.",
    )


def decide(
    lint: LintResult, comparisons: Sequence[Comparison], canary: Sequence[CanaryAnswer] = ()
) -> Verdict:
    """PASS if there is no lint error, no canary answer, and every gating metric passes."""
    if lint.errors:
        first = lint.errors[0]
        return Verdict(
            outcome="fail",
            reasons=tuple(f"{error.rule}: {error.message}" for error in lint.errors),
            fix=first.fix,
            stage="lint",
            comparisons=tuple(comparisons),
        )
    if canary:
        return Verdict(
            outcome="fail",
            reasons=tuple(_degenerate(answer) for answer in canary),
            fix=_fix(
                lint,
                "Compare both answers below; broken scales or another chat template are usual.",
            ),
            stage="canary",
            comparisons=tuple(comparisons),
            canary=tuple(canary),
        )
    gating = [comparison for comparison in comparisons if comparison.outcome is not None]
    failed = [comparison for comparison in gating if comparison.outcome != "pass"]
    # Beside one that failed, another may not have been settled any more.
    failed.sort(key=lambda comparison: comparison.outcome != "fail")
    # What decides comes first; of metrics that pass, those that hardly do.
    ordered = failed or sorted(gating, key=lambda comparison: not comparison.borderline)
    reasons = tuple(comparison.reason for comparison in ordered)
    if not failed:
        return Verdict(
            outcome="pass",
            reasons=reasons or (_nothing_gates(lint, comparisons),),
            fix=None,
            stage="evaluation" if comparisons else "lint",
            comparisons=tuple(comparisons),
        )
    only_perplexity = all(comparison.task == PERPLEXITY for comparison in failed)
    outcome = failed[0].outcome or "fail"
    fix = _fix(lint, "Check that the candidate was made from the baseline's model.")
    return Verdict(
        outcome=outcome,
        reasons=reasons,
        fix=fix if outcome == "fail" else MEASURE_MORE,
        stage="perplexity" if only_perplexity else "evaluation",
        comparisons=tuple(comparisons),
    )


def _paired_results(
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
            raise _missing(baseline, f"{result.task} {result.label}")
        yield base, result


class _Early(NamedTuple):
    """What the verdict on a task that was stopped early hangs on: the order, and how many gate."""

    seed: str
    gating: int


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
        noise = _finite(paired.noise_band(c, b)) if candidate.early_stop is None else None
        return cls(name, whole, base, candidate, moved, paired.retention_interval(c, b), noise)


class _Decision(NamedTuple):
    """What a limit makes of a metric; nothing for one without."""

    allowed: float | None = None
    outcome: Outcome | None = None
    borderline: bool = False
    reason: str | None = None


def _compare_task(
    metric: TaskMetric, baseline: TaskResult, candidate: TaskResult, early: _Early
) -> Comparison:
    """One metric of a task by the error budget."""
    pairs = _Pairs.of(baseline, candidate)
    base, moved, interval = pairs.base, pairs.moved, pairs.interval
    decision = _decision(metric, pairs, early)
    sentence = _budget_sentence(pairs.name, decision.allowed, moved, interval.value)
    return Comparison(
        task=candidate.task,
        metric=candidate.label,
        baseline=base.value,
        candidate=candidate.value,
        delta=candidate.value - base.value,
        retention=interval.value,
        ci_low=_finite(interval.low),
        ci_high=_finite(interval.high),
        threshold=metric.min_retention,
        n=len(base.samples),
        budget=decision.allowed,
        higher_is_better=candidate.higher_is_better,
        net_loss=moved.net_loss,
        losses=moved.losses,
        gains=moved.gains,
        flips=moved.flips,
        noise=pairs.noise,
        method="points lost net <= (1 - min_retention) * the baseline's points",
        outcome=decision.outcome,
        borderline=decision.borderline,
        early_stop=candidate.early_stop,
        reason=decision.reason or sentence,
    )


def _decision(metric: TaskMetric, pairs: _Pairs, early: _Early) -> _Decision:
    """The rule on all documents, or what it is settled to say of a task that was stopped."""
    limit, candidate = metric.min_retention, pairs.candidate
    if limit is None:
        return _Decision()
    scores = [s.score for s in (*pairs.base.samples, *candidate.samples)]
    whole = all(score.is_integer() for score in scores if math.isfinite(score))
    points = paired.total([sample.score for sample in pairs.whole.samples])
    allowed = paired.budget(points, limit) if whole else float(paired.allowance(points, limit))
    stopped = candidate.early_stop
    if stopped is None:
        # An error rate is mirrored: where 0.95 is to be kept, 1.05 is the most it may be.
        bound = limit if candidate.higher_is_better else 2 - limit
        outcome = _outcome(pairs.moved.net_loss <= allowed)
        return _Decision(allowed, outcome, _straddles(pairs.interval, bound))
    ids = [sample.doc_id for sample in pairs.whole.samples]
    order = evaluate.order(ids, early.seed, candidate.task)
    settled = stopping.settled(metric, pairs.whole, candidate, order, early.gating)
    asked_of = len(candidate.samples), stopped.n_planned
    reason = _early_sentence(pairs.name, settled, pairs.moved, allowed, asked_of)
    return _Decision(allowed, settled.outcome if settled else "inconclusive", False, reason)


def _compare_perplexity(
    metric: PerplexityMetric, baseline: EvalResult, candidate: EvalResult, weight_bits: int | None
) -> Comparison:
    """Perplexity on one text, window by window."""
    name = metric.perplexity.label
    base, result = baseline.perplexity(name), candidate.perplexity(name)
    if base is None:
        raise _missing(baseline, f"perplexity on {name}")
    if result is None:
        raise SettingsError(
            f"perplexity on {name} was not measured", "Evaluate with these settings."
        )
    for field in ("tokens_digest", "scored"):
        if getattr(base, field) != getattr(result, field):
            raise BaselineMismatchError(
                f"perplexity on {name}: {field} is {getattr(base, field)} in the baseline and "
                f"{getattr(result, field)} here",
                _eval_hint(baseline),
            )
    ratio = paired.ratio_interval(result.window_nll, base.window_nll, result.scored)
    limit = ratio_limit(metric, weight_bits)
    outcome = None
    if limit is not None:
        # A Decimal NaN raises where a float compares false: ask first.
        outcome = _outcome(math.isfinite(ratio.value) and Decimal(ratio.value) <= limit)
    return Comparison(
        task=PERPLEXITY,
        metric=name,
        baseline=base.value,
        candidate=result.value,
        delta=result.value - base.value,
        retention=ratio.value,
        ci_low=_finite(ratio.low),
        ci_high=_finite(ratio.high),
        threshold=limit,
        n=len(result.window_nll),
        higher_is_better=False,
        method="exp(mean difference of the windows' log-likelihoods) <= max_ratio",
        outcome=outcome,
        borderline=limit is not None and _straddles(ratio, limit),
        reason=_ratio_sentence(name, base.value, result.value, ratio.value, limit),
    )


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


def _outcome(passed: bool) -> Outcome:
    return "pass" if passed else "fail"


def _by_policy(comparison: Comparison, policy: Borderline) -> Comparison:
    """What the settings make of a metric whose interval holds the limit."""
    if policy == "point" or not comparison.borderline or comparison.outcome is None:
        return comparison
    outcome: Outcome = "fail" if policy == "block" else "inconclusive"
    if outcome == comparison.outcome:
        return comparison
    reason = f"{comparison.reason}; the limit is inside its 95 % interval (borderline: {policy})"
    return comparison.model_copy(update={"outcome": outcome, "reason": reason})


def _straddles(interval: paired.Interval, limit: Decimal) -> bool:
    """Whether the interval holds the limit: these documents cannot tell the two sides apart."""
    return interval.low <= float(limit) <= interval.high


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _missing(baseline: EvalResult, name: str) -> BaselineMismatchError:
    return BaselineMismatchError(
        f"the baseline of {baseline.model} has no {name}", _eval_hint(baseline)
    )


def _eval_hint(baseline: EvalResult) -> str:
    command = baselines.eval_command(baseline.model, baseline.revision)
    return f"Make it again with these settings: {command}"


def _points(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.2f}"


def _budget_sentence(
    name: str, allowed: float | None, moved: paired.Change, retention: float
) -> str:
    """For example: "ifeval acc: may lose 20 net, lost 12 (28 lost, 16 gained); 0.970 retained"."""
    if math.isnan(moved.net_loss):
        return f"{name}: a score is not a number"
    net = moved.net_loss
    did = f"gained {_points(-net)}" if net < 0 else f"lost {_points(net)}"
    may = f"may lose {_points(float(allowed))} net, " if allowed is not None else ""
    sides = f"({_points(moved.losses)} lost, {_points(moved.gains)} gained)"
    share = f"; {retention:.3f} of the baseline" if math.isfinite(retention) else ""
    return f"{name}: {may}{did}{' net' if not may else ''} {sides}{share}"


def _early_sentence(
    name: str,
    settled: Settled | None,
    moved: paired.Change,
    allowed: float,
    asked: tuple[int, int],
) -> str:
    """For example: "ifeval acc: FAIL after 541 documents, ...; may lose 20 net, lost 12 so far"."""
    seen, planned = asked
    lost = f"may lose {_points(float(allowed))} net, lost {_points(moved.net_loss)} so far"
    if settled is None:
        return f"{name}: not settled after {seen} of {planned} documents; {lost}"
    sure = "nothing can change that" if settled.certain else "the full run agrees with 99 %"
    return f"{name}: {settled.outcome.upper()} after {seen} of {planned} documents, {sure}; {lost}"


def _ratio_sentence(
    name: str, baseline: float, candidate: float, ratio: float, limit: Decimal | None
) -> str:
    if math.isnan(ratio):
        return f"perplexity on {name} is not a number"
    digits = 3
    # Never "1.100 times, at most 1.10 is allowed" for a ratio of 1.1002.
    while limit is not None and digits < 9 and round(ratio, digits) == float(limit) != ratio:
        digits += 1
    allowed = f"; at most {limit} is allowed" if limit is not None else ""
    return (
        f"perplexity on {name} is {ratio:.{digits}f} times the baseline's "
        f"({baseline:.2f} to {candidate:.2f}){allowed}"
    )


def _degenerate(answer: CanaryAnswer) -> str:
    return (
        f"{answer.task} document {answer.doc_id}: {answer.defect}; "
        "the baseline's answer to the same prompt is sound"
    )


def _nothing_gates(lint: LintResult, comparisons: Sequence[Comparison]) -> str:
    if comparisons:
        return "no lint errors; no metric has a limit, so none could fail"
    ran = len(lint.rules_run)
    skipped = f", {len(lint.skipped)} skipped" if lint.skipped else ""
    return f"no errors: {ran} {'rule' if ran == 1 else 'rules'} ran{skipped}"


def _fix(lint: LintResult, unquantized: str) -> str:
    """What helps a quantized checkpoint that has lost too much."""
    if lint.format is None:
        return unquantized
    algorithms = "/".join(lint.algorithms) or lint.format
    if "FP8" in algorithms and "4" not in algorithms:
        return (
            f"Export again and check the calibration: {algorithms} seldom loses this much unless "
            "scales are wrong or were calibrated on too little text."
        )
    return (
        f"Keep the most sensitive layers ({algorithms} usually suffers most in down_proj and in "
        "the first and last blocks) in FP8 or BF16, or recalibrate on text like the one judged."
    )
