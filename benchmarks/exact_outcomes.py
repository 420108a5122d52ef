"""What 541 documents say of a candidate of known retention: exact, no simulation.

Of the baseline's right answers each is lost, of its wrong ones each is gained, independently; all
numbers of lost and gained answers are summed over with their probabilities.
"""

import functools
import itertools
from decimal import Decimal
from typing import NamedTuple

import early_stop
from scipy.stats import binom

from gate.stats import paired
from gate.verdict.outcome import straddles

N, RIGHT = 541, 400
LIMIT = Decimal("0.95")


class Outcome(NamedTuple):
    """Probabilities of what a run on all documents says."""

    fail: float
    borderline: float
    blocked: float
    held: float


def answers(lost: int, gained: int) -> tuple[list[float], list[float]]:
    """Scores of a candidate and of the baseline, the latter's right answers first."""
    candidate = [0.0] * lost + [1.0] * (RIGHT - lost + gained) + [0.0] * (N - RIGHT - gained)
    return candidate, [1.0] * RIGHT + [0.0] * (N - RIGHT)


@functools.cache
def interval(lost: int, gained: int) -> paired.Interval:
    """The displayed interval of a candidate's retention."""
    return paired.retention_interval(*answers(lost, gained))


@functools.cache
def failed(lost: int, gained: int, limit: Decimal) -> bool:
    """Whether a candidate fails by its figure."""
    return paired.change(*answers(lost, gained)).net_loss > paired.budget(RIGHT, limit)


def likely(n: int, share: float) -> list[tuple[int, float]]:
    """The counts of a binomial that are not too rare to matter, with their probabilities."""
    low, high = (int(end) for end in binom.interval(1 - 1e-9, n, share))
    counts = range(max(0, low), min(n, high) + 1)
    return list(zip(counts, binom.pmf(counts, n, share).tolist(), strict=True))


def outcome(retention: float, flips: float, limit: Decimal = LIMIT) -> Outcome:
    """What all documents say of a candidate of that true retention, exactly."""
    lost, gained = early_stop.rates(RIGHT / N, retention, flips)
    fail = borderline = blocked = held = 0.0
    pairs = itertools.product(likely(RIGHT, lost), likely(N - RIGHT, gained))
    for (losses, p_losses), (gains, p_gains) in pairs:
        p = p_losses * p_gains
        found = interval(losses, gains)
        over, close = failed(losses, gains, limit), straddles(found, limit)
        fail += p * over
        borderline += p * close
        blocked += p * (over or close)
        held += p * (found.low <= retention <= found.high)
    return Outcome(fail, borderline, blocked, held)
