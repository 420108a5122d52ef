"""What has become of the figures of the last checkpoint that passed, and how much they may drop.

Each release may lose a little of the original; measured against the original alone, many small
losses add up unseen.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from gate import baseline
from gate.errors import BaselineError
from gate.records import (
    Comparison,
    Concern,
    EvalResult,
    PerplexityResult,
    Previous,
    TaskResult,
    Verdict,
)
from gate.settings import Metric, PerplexityMetric, Settings, TaskMetric
from gate.stats import paired
from gate.verdict.sentences import budget_sentence, points
from gate.verdict.soundness import MIN_BUDGET
from gate.verdict.tasks import Early, compare_task
from gate.verdict.texts import compare_perplexity

LAST = "what passed last"

MEND = "Mend the checkpoint, or allow the loss: max_drop_vs_released in quant-gate.yaml."


class _Made(NamedTuple):
    """What one metric shows; neither where the candidate was not asked any more.

    Attributes:
        missing: A sentence on what could not be compared, or why it does not gate.
    """

    comparison: Comparison | None = None
    missing: str = ""


NOTHING = _Made()


def compare_released(
    settings: Settings, released: EvalResult, candidate: EvalResult
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Every metric that gates, on the documents or windows that both have, and what is missing.

    Args:
        settings: Say which metrics gate, and by `max_drop_vs_released` how much tasks may lose.
        released: What passed last.
        candidate: May have been stopped early, as `released` may.
    """
    found: list[Comparison] = []
    missing: dict[str, None] = {}
    before = _unstopped(released)
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            made = _text(metric, before, candidate) if metric.max_ratio is not None else NOTHING
        else:
            made = _task(metric, settings, before, candidate) if metric.gates else NOTHING
        found += [made.comparison] if made.comparison else []
        missing |= {made.missing: None} if made.missing else {}
    return tuple(found), tuple(missing)


def require_points(settings: Settings, released: EvalResult) -> None:
    """Refuse a drop so small that one document's luck decides. Needs no candidate.

    Raises:
        BaselineError: It leaves fewer than five points of a metric that gates.
    """
    limit = settings.max_drop_vs_released
    for metric in settings.task_metrics if limit is not None else ():
        result = _result(metric, released) if metric.gates else None
        if result is None or limit is None:
            continue
        reached = paired.total([sample.score for sample in result.samples])
        if math.isfinite(reached) and paired.budget(reached, 1 - limit) < MIN_BUDGET:
            raise BaselineError(
                f"max_drop_vs_released cannot gate: of {metric.task} {result.label}, {LAST} has "
                f"{points(reached)} points, of which {limit} may be lost; under {MIN_BUDGET} "
                "points, chance decides",
                "Raise max_drop_vs_released, or evaluate more documents.",
            )


def with_released(decided: Verdict, settings: Settings, previous: Previous | None) -> Verdict:
    """The verdict, failed by a drop that is too large; or a word that no drop could be seen."""
    if settings.max_drop_vs_released is None:
        return decided
    gating = [found for found in previous.comparisons if found.outcome] if previous else []
    failed = [found for found in gating if found.outcome == "fail"]
    if failed:
        reasons = tuple(found.reason for found in failed)
        if decided.outcome == "fail":
            return decided.model_copy(update={"reasons": (*decided.reasons, *reasons)})
        update = {"outcome": "fail", "fix": MEND, "stage": "evaluation"}
        return decided.model_copy(update=update | {"reasons": (*reasons, *decided.reasons)})
    if gating or decided.outcome == "fail":
        return decided
    why = "; ".join(previous.missing) if previous else "the history holds nothing that passed"
    concern = Concern(
        kind="nothing-released",
        message=f"max_drop_vs_released decided nothing: {why}",
        fix="Add what passed to the history: gate history add REPORT",
    )
    return decided.model_copy(update={"concerns": (*decided.concerns, concern)})


def _task(
    metric: TaskMetric, settings: Settings, released: EvalResult, candidate: EvalResult
) -> _Made:
    now, before = _result(metric, candidate), _result(metric, released)
    if now is None:
        return NOTHING
    name = f"{now.task} {now.label}"
    differing = baseline.mismatches(released, _conditions(candidate, task=metric.task))
    if before is None or differing:
        return _unlike(name, differing)
    before, now = _shared(before, now)
    reached = paired.total([sample.score for sample in before.samples])
    if not now.samples:
        return _Made(missing=f"{name}: no document was asked of both")
    if not math.isfinite(reached):
        return _Made(missing=f"{name}: a score of {LAST} is not a number")
    drop = settings.max_drop_vs_released
    limit = None if drop is None else 1 - drop
    missing = ""
    if limit is not None and paired.budget(reached, limit) < MIN_BUDGET:
        missing = (
            f"{name} does not gate: on the {len(now.samples):,} documents that both were asked, "
            f"{LAST} has {points(reached)} points; of so few, chance decides"
        )
        limit = None
    held = metric.model_copy(update={"min_retention": limit, "min_score": None})
    # Neither is stopped here, so nothing hangs on the order.
    found = compare_task(held, before, now, Early(candidate.seed, 1, settings))
    return _Made(found.model_copy(update={"reason": _sentence(found)}), missing)


def _text(metric: PerplexityMetric, released: EvalResult, candidate: EvalResult) -> _Made:
    """The same of a text; it has no limit here."""
    label = metric.perplexity.label
    now, before = candidate.perplexity(label), released.perplexity(label)
    if now is None:
        return NOTHING
    differing = baseline.mismatches(released, _conditions(candidate, text=label))
    if before is None or differing or before.scored != now.scored:
        return _unlike(f"perplexity on {label}", differing)
    pair = _shared_windows(before, now)
    if not pair[0].window_nll:
        return _Made(missing=f"perplexity on {label}: no window was read of both")
    ours, theirs = (
        result.model_copy(update={"perplexities": (read,)})
        for result, read in zip((released, candidate), pair, strict=True)
    )
    free = metric.model_copy(update={"max_ratio": None})
    found = compare_perplexity(free, ours, theirs, None)
    reason = (
        f"perplexity on {label} is {found.retention:.3f} times that of {LAST} "
        f"({found.baseline:.2f} to {found.candidate:.2f})"
    )
    return _Made(found.model_copy(update={"reason": reason}))


def _result(metric: Metric, result: EvalResult) -> TaskResult | None:
    assert isinstance(metric, TaskMetric) and metric.metric is not None, "it gates"
    return result.task(metric.task, metric.metric, metric.filter)


def _unlike(name: str, differing: Sequence[str]) -> _Made:
    why = "; ".join(differing) or "it was not measured"
    return _Made(missing=f"{name} of {LAST} is no baseline for this: {why}")


def _conditions(result: EvalResult, *, task: str = "", text: str = "") -> baseline.Conditions:
    """How one task or text of a result was measured."""
    whole = baseline.Conditions.of(result)
    return dataclasses.replace(
        whole,
        setups=tuple(setup for setup in whole.setups if setup.task == task),
        tokens_digests={name: sha for name, sha in whole.tokens_digests.items() if name == text},
    )


def _unstopped(result: EvalResult) -> EvalResult:
    """The same as if nothing else had been planned: what both have is compared."""
    parts = {
        name: tuple(part.model_copy(update={"early_stop": None}) for part in getattr(result, name))
        for name in ("tasks", "perplexities")
    }
    return result.model_copy(update=parts)


def _shared(before: TaskResult, now: TaskResult) -> tuple[TaskResult, TaskResult]:
    """Both on the documents that both were asked in the same words."""
    known = {sample.doc_id: sample for sample in before.samples}
    pairs = [
        (known[sample.doc_id], sample)
        for sample in now.samples
        if sample.doc_id in known
        and known[sample.doc_id].doc_hash == sample.doc_hash
        and known[sample.doc_id].prompt_hash == sample.prompt_hash
    ]
    whole = {"parts": (), "early_stop": None}
    return (
        before.model_copy(update=whole | {"samples": tuple(pair[0] for pair in pairs)}),
        now.model_copy(update=whole | {"samples": tuple(pair[1] for pair in pairs)}),
    )


def _shared_windows(
    before: PerplexityResult, now: PerplexityResult
) -> tuple[PerplexityResult, PerplexityResult]:
    """Both on the windows that both read."""
    read = [
        dict(zip(each.window_ids or range(len(each.window_nll)), each.window_nll, strict=False))
        for each in (before, now)
    ]
    ids = sorted(read[0].keys() & read[1].keys())
    ours, theirs = (
        each.model_copy(
            update={
                "window_nll": tuple(nll[i] for i in ids), "window_ids": (), "early_stop": None
            }
        )
        for each, nll in zip((before, now), read, strict=True)
    )  # fmt: skip
    return ours, theirs


def _sentence(found: Comparison) -> str:
    """Its reason, which says against what."""
    assert found.losses is not None and found.gains is not None, "a task has points"
    moved = paired.Change(found.losses, found.gains, found.flips or 0.0)
    name = f"{found.task} {found.metric}"
    return budget_sentence(name, found.budget, moved, found.retention, whose=LAST)
