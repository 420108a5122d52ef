"""A look at the first answers: does the candidate still speak?

An absolute test would fail sound small models (half of SmolLM2-135M's own IFEval answers never
end), so a defect counts only on prompts where the baseline has none.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence

from gate.records import Answer, CanaryAnswer

REPEATS = 5
"""A text that compresses to less than a fifth of itself says the same thing again and again."""
MIN_CHARACTERS = 200
"""Shorter texts do not show repetition."""
SHARE = 0.5
"""The candidate fails when more than this share of the sound prompts degenerated ..."""
AT_LEAST = 3
"""... and at least so many: one prompt may loop by chance."""


def defect(answer: Answer) -> str | None:
    """What is wrong with one answer by itself: empty, repeating, or never-ending."""
    text = answer.text.strip()
    if not text:
        return "empty"
    if len(text) >= MIN_CHARACTERS:
        raw = text.encode("utf-8", "replace")
        if len(zlib.compress(raw, 9)) * REPEATS < len(raw):
            return "repeating"
    return "never-ending" if answer.finish == "length" else None


def degenerated(
    task: str,
    answers: Sequence[Answer],
    baseline: Iterable[Answer],
    prompt: Callable[[int], str | None],
) -> tuple[CanaryAnswer, ...]:
    """The answers that condemn the candidate: empty where there are too few of them.

    Args:
        task: The task's name.
        answers: The candidate's first answers.
        baseline: The stored ones, of at least the same documents.
        prompt: Document id to its prompt.
    """
    stored = {answer.doc_id: answer for answer in baseline}
    pairs = [(answer, stored[answer.doc_id]) for answer in answers if answer.doc_id in stored]
    sound = [(answer, reference) for answer, reference in pairs if defect(reference) is None]
    bad = tuple(
        CanaryAnswer(
            task=task,
            doc_id=answer.doc_id,
            defect=found,
            prompt=prompt(answer.doc_id),
            baseline=reference.text,
            candidate=answer.text,
        )
        for answer, reference in sound
        if (found := defect(answer)) is not None
    )
    return bad if len(bad) >= AT_LEAST and len(bad) > SHARE * len(sound) else ()
