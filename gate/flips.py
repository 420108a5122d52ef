"""What changed between both models' answers: documents that flipped, kinds of instruction."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gate.records import (
    Answer,
    Comparison,
    EvalResult,
    Flip,
    InstructionChange,
    Part,
    Report,
    SampleScore,
    TaskResult,
)

MOST = 10
"""Flips that a report holds."""

MOST_GAINS = 3
"""Of these, where there are enough losses: gains show how much of a loss is chance."""

Prompt = Callable[[str, int], str | None]


class Pair(NamedTuple):
    """One document as both models did it; its parts where both name the same."""

    base: SampleScore
    sample: SampleScore
    parts: tuple[tuple[Part, Part], ...]


def explained(report: Report, stored: EvalResult, prompt: Prompt) -> Report:
    """The report with its flips and its kinds of instruction; as it is without an evaluation.

    Args:
        report: Of a candidate that was compared with `stored`.
        prompt: Task and document id to the text that the model was given.
    """
    result, comparisons = report.evaluation, report.verdict.comparisons
    if result is None:
        return report
    deciding = _deciding(comparisons)
    found = [_flips(comparison, stored, result, prompt) for comparison in deciding]
    share = MOST // max(1, sum(bool(flips) for flips in found))
    shown = [flip for flips in found for flip in _some(flips, max(1, share))]
    return report.model_copy(
        update={
            "flips": tuple(shown[:MOST]),
            "instructions": tuple(_instructions(comparisons, stored, result)),
        }
    )


def _deciding(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One metric a task: the first that fails, else the first with a limit, else the first."""
    ranked = sorted(comparisons, key=lambda c: (c.outcome != "fail", c.outcome is None))
    first: dict[str, Comparison] = {}
    for comparison in ranked:
        first.setdefault(comparison.task, comparison)
    return list(first.values())


def _flips(
    comparison: Comparison, stored: EvalResult, result: EvalResult, prompt: Prompt
) -> list[Flip]:
    """Every document that moved one metric: losses, then gains, each the largest first."""
    better = 1 if comparison.higher_is_better else -1
    answers = _by_id(stored.answers.get(comparison.task, ()))
    written = _by_id(result.answers.get(comparison.task, ()))
    moved = [
        (better * (pair.sample.score - pair.base.score), pair.sample.doc_id, pair.parts)
        for pair in _pairs(comparison, stored, result)
        if pair.base.score != pair.sample.score
        and math.isfinite(pair.base.score + pair.sample.score)
    ]
    moved.sort(key=lambda item: (item[0] > 0, -abs(item[0]), item[1]))
    return [
        Flip(
            task=comparison.task,
            metric=comparison.metric,
            doc_id=doc_id,
            gained=change > 0,
            parts=tuple(ours.kind for theirs, ours in parts if theirs.score != ours.score),
            prompt=prompt(comparison.task, doc_id),
            baseline=answers.get(doc_id),
            candidate=written.get(doc_id),
        )
        for change, doc_id, parts in moved
    ]


def _some(flips: Sequence[Flip], most: int) -> list[Flip]:
    """The first losses and a few gains, or more of one where there are fewer of the other."""
    losses = [flip for flip in flips if not flip.gained]
    gains = [flip for flip in flips if flip.gained]
    kept = losses[: max(most - min(MOST_GAINS, len(gains)), 0)]
    return [*kept, *gains[: most - len(kept)]]


def _instructions(
    comparisons: Sequence[Comparison], stored: EvalResult, result: EvalResult
) -> Iterator[InstructionChange]:
    """Kinds of instruction whose points changed, of the first metric of each task that has any."""
    done: set[str] = set()
    for comparison in sorted(comparisons, key=lambda c: c.outcome is None):
        if comparison.task in done:
            continue
        points: Mapping[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
        for pair in _pairs(comparison, stored, result):
            for theirs, ours in pair.parts:
                counted = points[ours.kind]
                counted[0] += 1
                counted[1] += theirs.score
                counted[2] += ours.score
        if points:
            done.add(comparison.task)
        worst = sorted(points.items(), key=lambda item: (item[1][2] - item[1][1], item[0]))
        for kind, (n, before, after) in worst:
            if before != after:
                yield InstructionChange(
                    task=comparison.task,
                    metric=comparison.metric,
                    kind=kind,
                    n=int(n),
                    baseline=before,
                    candidate=after,
                )


def _pairs(comparison: Comparison, stored: EvalResult, result: EvalResult) -> Iterator[Pair]:
    """The samples of both models that a comparison is about; none for a perplexity."""
    base, ours = _measured(stored, comparison), _measured(result, comparison)
    if base is None or ours is None:
        return
    # `verdict.compare` has refused results whose documents differ otherwise.
    base = base.beside(ours)
    theirs, named = base.parts_by_id, ours.parts_by_id
    for before, after in zip(base.samples, ours.samples, strict=True):
        parts = theirs.get(before.doc_id, ()), named.get(after.doc_id, ())
        alike = [part.kind for part in parts[0]] == [part.kind for part in parts[1]]
        yield Pair(before, after, tuple(zip(*parts, strict=True)) if alike else ())


def _measured(result: EvalResult, comparison: Comparison) -> TaskResult | None:
    key = comparison.task, comparison.metric
    return next((found for found in result.tasks if (found.task, found.label) == key), None)


def _by_id(answers: Iterable[Answer]) -> dict[int, str]:
    return {answer.doc_id: answer.text for answer in answers}
