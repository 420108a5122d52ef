"""In what the answers to one task differ from the baseline's beyond their score.

Each check needs both: a move that chance explains in one of a thousand comparisons of sound models
(`stats.shifts`), and one that is large enough to matter.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gate.answers import languages
from gate.answers.counting import is_empty, thought
from gate.records import Answer, AnswerStats, Concern, EvalResult, TaskSetup
from gate.stats import shifts
from gate.stats.shifts import Shift

TRUNCATED = 0.02
EMPTY = 0.01
LANGUAGE = 0.05
THINKING = 0.05
"""Shares of the documents in which something must have come about, net, to be told."""

LENGTH = 1.25
"""Factor by which the mean length must have moved, up or down."""

CUT_THINKING = 0.01
"""Share of answers inside a think block from which it is told, whatever the baseline does."""

SHOWN_LOST = 5


class Pairs(NamedTuple):
    """Both models' answers to the same documents, in the same order."""

    setup: TaskSetup
    stored: TaskSetup | None
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]

    @classmethod
    def of(cls, setup: TaskSetup, stored: EvalResult, candidate: EvalResult) -> "Pairs":
        """The documents that both answered."""
        known = {answer.doc_id: answer for answer in stored.answers.get(setup.task, ())}
        written = {answer.doc_id: answer for answer in candidate.answers.get(setup.task, ())}
        both = sorted(known.keys() & written.keys())
        return cls(
            setup,
            stored.setup(setup.task),
            tuple(known[doc_id] for doc_id in both),
            tuple(written[doc_id] for doc_id in both),
        )

    @property
    def limit(self) -> str:
        """For example "the limit of 1,280 new tokens"."""
        limit = self.setup.generation_kwargs.get("max_gen_toks")
        return f"the limit of {limit:,} new tokens" if isinstance(limit, int) else "the limit"


def concerns(pairs: Pairs) -> Iterator[Concern]:
    """Everything that a reader should know about the answers to one task, the gravest first."""
    yield from _empty(pairs)
    yield from _truncated(pairs)
    yield from _thinking(pairs)
    yield from _language(pairs)
    yield from _length(pairs)


def lost(setup: TaskSetup, stats: Sequence[AnswerStats], whose: str) -> Iterator[Concern]:
    """Documents that could not be scored, of the candidate or of the baseline."""
    for found in stats:
        if found.task == setup.task and found.lost:
            shown = ", ".join(str(sample.doc_id) for sample in found.lost[:SHOWN_LOST])
            more = ", …" if len(found.lost) > SHOWN_LOST else ""
            where = ", ".join(dict.fromkeys(sample.where for sample in found.lost[:SHOWN_LOST]))
            yield Concern(
                kind="lost-samples",
                message=f"{setup.task}: {len(found.lost):,} of {found.asked:,} documents could not "
                f"be scored and count as wrong for {whose} ({where}; documents {shown}{more})",
                fix="Find out what the task's scorer expects of an answer.",
            )


def _empty(pairs: Pairs) -> Iterator[Concern]:
    before, after = ([is_empty(a) for a in side] for side in (pairs.before, pairs.after))
    if Shift.of(before, after).rose(EMPTY):
        yield Concern(
            kind="empty-answers",
            message=f"{pairs.setup.task}: {_of(after)} answers are empty, {sum(before):,} of the "
            "baseline's",
            fix="Compare prompts and end tokens: a model that ends at once was asked in a way that "
            "it does not know.",
        )


def _truncated(pairs: Pairs) -> Iterator[Concern]:
    before, after = ([a.finish == "length" for a in side] for side in (pairs.before, pairs.after))
    if Shift.of(before, after).rose(TRUNCATED):
        yield Concern(
            kind="truncated-answers",
            message=f"{pairs.setup.task}: {_of(after)} answers were cut at {pairs.limit}, "
            f"{sum(before):,} of the baseline's; a cut answer is often scored as wrong",
            fix="Read some of them: answers that never end point to end tokens or to weights, "
            "answers that are only longer to max_gen_toks.",
        )


def _thinking(pairs: Pairs) -> Iterator[Concern]:
    task = pairs.setup.task
    ends = [thought(pairs.stored, a) for a in pairs.before]
    now = [thought(pairs.setup, a) for a in pairs.after]
    cut = [[end == "unclosed" for end in side] for side in (ends, now)]
    if sum(cut[1]) > CUT_THINKING * len(now):
        yield Concern(
            kind="cut-thinking",
            message=f"{task}: {_of(cut[1])} answers end inside a think block, {sum(cut[0]):,} of "
            f"the baseline's; there is no answer in them ({pairs.limit} counts thinking, too)",
            fix="Raise max_gen_toks, or turn thinking off with chat_template_kwargs.",
        )
    thinks = [[end is not None for end in side] for side in (ends, now)]
    if Shift.of(*thinks).rose(THINKING) or Shift.of(thinks[1], thinks[0]).rose(THINKING):
        yield Concern(
            kind="thinking",
            message=f"{task}: {_of(thinks[1])} answers begin with a think block, "
            f"{sum(thinks[0]):,} of the baseline's",
            fix="Check that both have the same chat template and chat_template_kwargs.",
        )


def _language(pairs: Pairs) -> Iterator[Concern]:
    """The language whose share moved most, either way; the probability is shared by all."""
    before, after = languages.of_all(pairs.before), languages.of_all(pairs.after)
    both = sorted(before.keys() & after.keys())
    spoken = sorted({*before.values(), *after.values()})
    moved = []
    for language in spoken:
        sides = [[side[doc_id] == language for doc_id in both] for side in (before, after)]
        alpha = shifts.ALPHA / (2 * len(spoken))
        ways = Shift.of(*sides), Shift.of(sides[1], sides[0])
        if any(shift.rose(LANGUAGE, alpha) for shift in ways):
            moved.append((abs(ways[0].came - ways[0].went), language, sides))
    if moved:
        _, language, sides = max(moved)
        yield Concern(
            kind="answer-language",
            message=f"{pairs.setup.task}: {_of(sides[1])} answers are in {language}, "
            f"{sum(sides[0]):,} of the baseline's to the same prompts",
            fix="Read some of them: a model that changes its language was damaged or is asked "
            "through another chat template.",
        )


def _length(pairs: Pairs) -> Iterator[Concern]:
    before, after = ([a.tokens for a in side] for side in (pairs.before, pairs.after))
    # One token more for each: an empty answer has a logarithm, too.
    counts = ([max(n, 0) + 1 for n in side] for side in (before, after))
    ratio, p = shifts.mean_ratio(*counts)
    if p <= shifts.ALPHA and abs(math.log(ratio)) > math.log(LENGTH):
        means = [sum(side) / len(side) for side in (after, before)]
        yield Concern(
            kind="answer-length",
            message=f"{pairs.setup.task}: a typical answer is {ratio:.2f} times as long as the "
            f"baseline's to the same prompt ({means[0]:,.0f} tokens on average, {means[1]:,.0f})",
            fix="Read some of them: a score can stay the same while answers ramble or break off.",
        )


def _of(flags: Sequence[bool]) -> str:
    return f"{sum(flags):,} of {len(flags):,}"
