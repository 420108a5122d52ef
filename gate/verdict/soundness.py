"""Whether a baseline is one: enough points to lose, and a model that speaks.

Two equally broken models agree with one another, so what is compared with a baseline says nothing
where the baseline itself is broken.
"""

import math

from gate import baseline as baselines
from gate import canary, stopping
from gate.errors import BaselineError, SettingsError
from gate.records import EvalResult, TaskResult
from gate.settings import Settings, TaskMetric
from gate.stats import paired
from gate.verdict.sentences import eval_hint, missing, points

MIN_BUDGET = 5
"""Fewer points than this and one document's luck decides.

Source: docs/statistics.md; at a retention limit of 0.95 it asks for 100 points.
"""

BROKEN = frozenset({"empty", "repeating"})
"""What no sound model answers to half of all prompts; that it does not end in time, many do."""

SHARE = 0.5

MOST_PERPLEXITY = 1000
"""A model that knows nothing has the size of its vocabulary, 32,000 and more as a rule; a sound one
stays below 100 on text of its language."""


def check_baseline(settings: Settings, baseline: EvalResult) -> None:
    """Refuse a baseline with which nothing should be compared. Needs no candidate.

    Raises:
        BaselineError: A budget under five points, a score below its own floor, answers or a
            perplexity that no sound model has.
        BaselineMismatchError: The baseline lacks a gating metric.
        SettingsError: `min_score` for a metric of which less is better.
    """
    for metric in settings.task_metrics:
        if metric.gates and metric.metric is not None:
            result = baseline.task(metric.task, metric.metric, metric.filter)
            if result is None:
                raise missing(baseline, f"{metric.task} {metric.metric}")
            _require_score(metric, result, baseline)
            _require_budget(metric, result, baseline)
    for task in dict.fromkeys(metric.task for metric in settings.task_metrics if metric.gates):
        if not any(m.task == task and m.min_score is not None for m in settings.task_metrics):
            _require_answers(task, baseline)
    for text in settings.perplexity_metrics:
        found = baseline.perplexity(text.perplexity.label)
        if found is not None and not found.value <= MOST_PERPLEXITY:
            raise BaselineError(
                f"the baseline of {baseline.model} is none: its perplexity on {found.name} is "
                f"{found.value:,.0f}, near that of a model that knows nothing; two equally broken "
                "models would pass",
                _again(baseline, "or take a text of a language that it knows"),
            )


def _require_score(metric: TaskMetric, result: TaskResult, baseline: EvalResult) -> None:
    """A baseline below the absolute floor would pass no candidate but a better one."""
    if metric.min_score is None:
        return
    name = f"{metric.task} {result.label}"
    if not result.higher_is_better:
        raise SettingsError(
            f"{name} has a min_score, but less of it is better", "Use min_retention for it."
        )
    reached = paired.total([sample.score for sample in result.samples])
    if not math.isfinite(reached) or stopping.allowance(metric, result) < 0:
        raise BaselineError(
            f"{name}: the baseline of {baseline.model} reaches {result.value:.3f}, and at least "
            f"{metric.min_score} is required; two equally broken models would pass",
            _again(baseline, "or lower min_score in quant-gate.yaml"),
        )


def _require_budget(metric: TaskMetric, result: TaskResult, baseline: EvalResult) -> None:
    """On so few points, chance decides."""
    name = f"{metric.task} {result.label}"
    reached = paired.total([sample.score for sample in result.samples])
    if not math.isfinite(reached):
        raise BaselineError(f"{name}: the baseline's score is not a number", eval_hint(baseline))
    retention = metric.min_retention
    if retention is None or (allowed := paired.budget(reached, retention)) >= MIN_BUDGET:
        return
    needed = math.ceil(MIN_BUDGET / (1 - retention)) if retention < 1 else 0
    raise BaselineError(
        f"{name} cannot gate: the baseline has {points(reached)} points, of which "
        f"{retention} must be kept, so {max(allowed, 0)} may be lost net; under "
        f"{MIN_BUDGET}, chance decides",
        (
            f"Evaluate more documents (the baseline needs {needed} points), "
            if needed
            else "Ask for less than the whole baseline, "
        )
        + "or remove min_retention, which makes the metric advisory.",
    )


def _require_answers(task: str, baseline: EvalResult) -> None:
    """A model that says nothing, or the same again and again, is no measure."""
    answers = baseline.answers.get(task, ())
    broken = sum(canary.defect(answer) in BROKEN for answer in answers)
    if broken > SHARE * len(answers):
        raise BaselineError(
            f"the baseline of {baseline.model} is none: {broken:,} of its {len(answers):,} answers "
            f"to {task} are empty or repeat themselves; two equally broken models would pass",
            _again(baseline, f"or give {task} a min_score, if these are its answers"),
        )


def _again(baseline: EvalResult, otherwise: str) -> str:
    command = baselines.eval_command(baseline.model, baseline.revision)
    return f"Check the model, make the baseline again ({command}), {otherwise}."
