"""Figures of a stranger, within the bounds of an evaluation, and plain names.

What is no such figure becomes NaN or nothing, what is no such name is not shown.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal

from gate import verdict
from gate.records import Comparison, Flip, InstructionChange, Outcome, Size

NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./@+:,-]{0,199}", re.ASCII)
MOST_NUMBER = 1e15
UNKNOWN = "(name not shown)"
RANK: dict[Outcome, int] = {"pass": 0, "inconclusive": 1, "fail": 2}


def name(text: str) -> str | None:
    """A name of a plain alphabet; None for any other text."""
    return text if NAME.fullmatch(text) else None


def number(value: float) -> float:
    """NaN for what is no number of an evaluation."""
    return float(value) if abs(value) <= MOST_NUMBER else math.nan


def maybe(value: float | None) -> float | None:
    """The same, with None for what is none."""
    return None if value is None or math.isnan(number(value)) else number(value)


def count(value: int) -> int:
    """Within what can be counted."""
    return max(0, min(value, int(MOST_NUMBER)))


def size(claimed: Size) -> Size:
    """Its totals, without the names of parts."""
    reference = claimed.reference_bytes
    return Size(
        stored_bytes=max(1, count(claimed.stored_bytes)),
        parameters=count(claimed.parameters),
        bits_per_weight=number(claimed.bits_per_weight),
        linear_bits_per_weight=maybe(claimed.linear_bits_per_weight),
        by_dtype={},
        by_class={},
        reference_bytes=None if reference is None else count(reference),
    )


def comparison(claimed: Comparison) -> Comparison:
    """The same figures, with the outcome and the sentence that follow from them."""
    speed = claimed.task == verdict.SPEED
    known = speed and verdict.SPEED_METRIC.fullmatch(claimed.metric)
    made = Comparison(
        task=name(claimed.task) or UNKNOWN,
        metric=claimed.metric if known else name(claimed.metric) or UNKNOWN,
        baseline=number(claimed.baseline),
        candidate=number(claimed.candidate),
        delta=number(claimed.delta),
        retention=number(claimed.retention),
        ci_low=maybe(claimed.ci_low),
        ci_high=maybe(claimed.ci_high),
        threshold=_limit(claimed),
        absolute=claimed.absolute,
        n=count(claimed.n),
        budget=maybe(claimed.budget),
        higher_is_better=claimed.higher_is_better,
        net_loss=maybe(claimed.net_loss),
        losses=maybe(claimed.losses),
        gains=maybe(claimed.gains),
        flips=maybe(claimed.flips),
        method="as the fork's run computed it",
        outcome=None,
        # How the ranges of runs lie is not in a comparison.
        borderline=claimed.borderline if speed else _straddles(claimed),
        reason="",
    )
    update = {"outcome": _outcome(made, claimed.outcome), "reason": _reason(made)}
    return made.model_copy(update=update)


def _limit(claimed: Comparison) -> Decimal | None:
    """The limit with the digits that one has; of what is retained it is no thousand."""
    if claimed.threshold is None:
        return None
    most, digits = (MOST_NUMBER, 15) if claimed.absolute else (1000, 6)
    limit = float(claimed.threshold)
    return Decimal(f"{limit:.{digits}g}") if abs(limit) < most else Decimal(0)


def _straddles(claimed: Comparison) -> bool:
    """Whether the interval holds the limit, mirrored for an error rate that has a budget."""
    low, high, limit = claimed.ci_low, claimed.ci_high, claimed.threshold
    if low is None or high is None or limit is None:
        return False
    mirrored = claimed.budget is not None and not claimed.higher_is_better
    return low <= (2 - float(limit) if mirrored else float(limit)) <= high


def _outcome(made: Comparison, claimed: Outcome | None) -> Outcome | None:
    """By the deciding rule; None for an advisory metric."""
    if made.threshold is None and made.budget is None:
        return None
    if made.absolute and made.threshold is not None:
        limit, figure = float(made.threshold), made.candidate
        held = figure >= limit if made.higher_is_better else figure <= limit
    elif made.task == verdict.SPEED and made.borderline:
        held = True
    elif made.budget is not None:
        held = made.net_loss is not None and made.net_loss <= made.budget
    else:
        limit, figure = float(made.threshold or 0), made.retention
        held = figure >= limit if made.higher_is_better else figure <= limit
    follows: Outcome = "pass" if held else "fail"
    return max(follows, claimed or "pass", key=lambda outcome: RANK[outcome])


def _reason(made: Comparison) -> str:
    whose = f"{made.task} {made.metric}"
    if made.budget is not None and made.net_loss is not None:
        return f"{whose}: may lose {made.budget:g} net, lost {made.net_loss:g}"
    if made.threshold is None:
        return f"{whose}: {made.retention:.3f} of the baseline"
    bound = "least" if made.higher_is_better else "most"
    if made.absolute:
        return f"{whose}: {made.candidate:g}; at {bound} {made.threshold} is allowed"
    return (
        f"{whose}: {made.retention:.3f} times the baseline; at {bound} {made.threshold} is allowed"
    )


def flip(claimed: Flip) -> Flip:
    """Which document it is, without the texts."""
    return Flip(
        task=name(claimed.task) or UNKNOWN,
        metric=name(claimed.metric) or UNKNOWN,
        doc_id=count(claimed.doc_id),
        gained=claimed.gained,
        parts=names(claimed.parts),
        prompt=None,
        baseline=None,
        candidate=None,
    )


def instruction(change: InstructionChange) -> InstructionChange:
    """Its counts."""
    return InstructionChange(
        task=name(change.task) or UNKNOWN,
        metric=name(change.metric) or UNKNOWN,
        kind=name(change.kind) or UNKNOWN,
        n=count(change.n),
        baseline=number(change.baseline),
        candidate=number(change.candidate),
    )


def names(texts: Sequence[str]) -> tuple[str, ...]:
    """Those of the first twenty that are plain names."""
    return tuple(text for text in texts[:20] if name(text))
