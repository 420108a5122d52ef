"""The answers to a task, counted: none is dropped in silence."""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from gate.answers import languages
from gate.harness import thinking
from gate.harness.thinking import Thinking
from gate.records import Answer, AnswerStats, EvalResult, Lost, ScoredDocument, TaskSetup

SHOWN_LANGUAGES = 3


def counted(
    setups: Sequence[TaskSetup], documents: Mapping[str, Sequence[ScoredDocument]]
) -> tuple[AnswerStats, ...]:
    """What became of the documents of every task that generates, or that lost one.

    Args:
        setups: How the tasks were asked.
        documents: Task to every document that was asked.
    """
    found = []
    for setup in setups:
        asked = documents.get(setup.task, ())
        answers = [document.answer for document in asked if document.answer is not None]
        lost = [Lost(doc_id=d.doc_id, where=d.lost) for d in asked if d.lost is not None]
        if answers or lost:
            found.append(_stats(setup, len(asked), answers, lost))
    return tuple(found)


def beside(stored: EvalResult, candidate: EvalResult) -> tuple[AnswerStats, ...]:
    """The baseline's answers to the documents that the candidate was asked.

    A baseline of a version that did not count is counted from its stored answers.
    """
    found = []
    for setup in candidate.setups:
        asked = _asked(candidate, setup.task)
        answers = [a for a in stored.answers.get(setup.task, ()) if a.doc_id in asked]
        lost = [known for known in _lost(stored, setup.task) if known.doc_id in asked]
        if answers or lost:
            found.append(_stats(stored.setup(setup.task) or setup, len(asked), answers, lost))
    return tuple(found)


def _asked(result: EvalResult, task: str) -> Collection[int]:
    """The documents of a task that were asked, also where it was not run to its end."""
    scored = {s.doc_id for found in result.tasks if found.task == task for s in found.samples}
    return scored | {answer.doc_id for answer in result.answers.get(task, ())}


def thought(setup: TaskSetup | None, answer: Answer) -> Thinking | None:
    """How the think block with which an answer began ended, also where nobody looked then."""
    if setup is None or setup.think is None:
        return thinking.split(answer.text)[1]
    return answer.thinking


def is_empty(answer: Answer) -> bool:
    """Whether nothing can be read in it."""
    return not answer.text.strip()


def _lost(stored: EvalResult, task: str) -> tuple[Lost, ...]:
    return next((found.lost for found in stored.answer_stats if found.task == task), ())


def _stats(
    setup: TaskSetup, asked: int, answers: Sequence[Answer], lost: Sequence[Lost]
) -> AnswerStats:
    tokens = [answer.tokens for answer in answers]
    ends = Counter(thought(setup, answer) for answer in answers)
    truncated = sum(answer.finish == "length" for answer in answers)
    return AnswerStats(
        task=setup.task,
        asked=asked,
        answered=len(answers),
        scored=asked - len(lost),
        lost=tuple(lost),
        ended=len(answers) - truncated,
        truncated=truncated,
        empty=sum(map(is_empty, answers)),
        tokens_mean=round(statistics.fmean(tokens), 1) if tokens else None,
        tokens_median=statistics.median(tokens) if tokens else None,
        tokens_max=max(tokens, default=None),
        thought=ends["closed"],
        cut_thinking=ends["unclosed"],
        languages=_shares(languages.of_all(answers)),
    )


def _shares(spoken: Mapping[int, str]) -> dict[str, float]:
    most = Counter(spoken.values()).most_common(SHOWN_LANGUAGES)
    return {name: round(count / len(spoken), 4) for name, count in most}
