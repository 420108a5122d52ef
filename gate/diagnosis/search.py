"""A small set of modules that brings the perplexity back under its limit when it is put back."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gate.diagnosis.passes import Passes
from gate.diagnosis.ranking import Returned
from gate.diagnosis.suspects import Suspect
from gate.diagnosis.targets import Distance
from gate.evaluate import Progress
from gate.records import Exclusion
from gate.stats.paired import Interval, ratio_interval

MOST_SETS = 7
"""Sets that are measured at most."""

TAIL = 0.05
"""Probability that all of the text is worse than the bound that 8 windows give for it."""

CLOSE = 0.02
"""Share of all extra bytes below which two sets cost the same."""

TINY, MUCH = 1e-9, 3.0
"""Bounds of what a set may miss its target by, in nats: beyond, a perplexity says no more."""

Group = tuple[Suspect, ...]


@dataclass(frozen=True)
class Tried:
    """One set, and what the candidate was with it put back."""

    groups: tuple[Group, ...]
    distance: Distance
    ratio: Interval

    @property
    def extra_bytes(self) -> int:
        """What it costs."""
        return _bytes(self.groups)


def ratio(passes: Passes, distance: Distance, windows: int) -> Interval:
    """The perplexity ratio to the reference, and its bound for all of the text.

    Args:
        passes: Where both were read.
        distance: Of the candidate.
        windows: Of the whole text: the fewer were not read, the closer is the bound.
    """
    theirs = np.concatenate([targets.nll for targets in passes.targets])
    scored = passes.batches[0].shape[1] - 1
    found = ratio_interval(distance.nll.tolist(), theirs.tolist(), scored, TAIL)
    unread = math.sqrt(max(0.0, 1 - len(theirs) / windows))
    low, high = (found.value * (end / found.value) ** unread for end in (found.low, found.high))
    return Interval(found.value, low, high)


def exclusion(
    passes: Passes,
    groups: Sequence[Group],
    returned: Mapping[Suspect, Returned],
    limit: float | None,
    windows: int,
    progress: Progress,
) -> Exclusion | None:
    """The cheapest set found that keeps the limit; None where none does, or none is asked for.

    What the modules carry says which set should return a given share of the damage at the least
    cost; how much the limit asks for is found by measuring such sets.

    Args:
        passes: The candidate on its windows.
        groups: What can only be excluded together.
        returned: What each suspect carries.
        limit: What the upper bound of the perplexity ratio may be; None for no limit.
        windows: Of the whole text.
        progress: Told of every set.
    """
    before = ratio(passes, passes.base, windows)
    if limit is None or before.high <= limit:
        return None
    search = _Search(
        math.log(limit), lambda share: cover(groups, returned, share), CLOSE * _bytes(groups)
    )
    search.begin(before)
    with progress("looking for modules to exclude", MOST_SETS) as advance:
        while (chosen := search.next()) is not None:
            distance = passes.measured(suspect for group in chosen for suspect in group)
            search.add(Tried(chosen, distance, ratio(passes, distance, windows)))
            advance(1)
    return _record(search.best, limit, search.count) if search.best else None


class _Search:
    """The least share of the damage that a set must carry, by regula falsi (Illinois).

    Args:
        target: Logarithm of the limit.
        cover: From a share to a set that carries it.
        close: Bytes that make no difference.
    """

    def __init__(
        self, target: float, cover: Callable[[float], tuple[Group, ...]], close: float
    ) -> None:
        self._target, self._cover, self._close = target, cover, close
        self._tried: set[tuple[Group, ...]] = set()
        self._share = 0.0
        # Shares known to be too little and enough, and by how much each misses the target.
        self._low, self._above = 0.0, math.inf
        self._high, self._below = 1.0, target
        self._last: bool | None = None
        self.best: Tried | None = None

    @property
    def count(self) -> int:
        """Sets that were tried."""
        return len(self._tried)

    def begin(self, before: Interval) -> None:
        """What the candidate is with nothing put back."""
        self._above = self._missed(before)

    def next(self) -> tuple[Group, ...] | None:
        """The next set to try; None where no other is worth it."""
        if self.count == MOST_SETS or not self._below > 0:
            return None
        if self.best and self.best.extra_bytes - _bytes(self._cover(self._low)) <= self._close:
            return None
        for _ in range(MOST_SETS):
            span = self._high - self._low
            self._share = self._low + span * self._above / (self._above + self._below)
            chosen = self._cover(self._share)
            if chosen not in self._tried:
                return chosen
            self._narrow(bool(self.best and chosen == self.best.groups))
        return None

    def add(self, tried: Tried) -> None:
        """What came of it."""
        self._tried.add(tried.groups)
        missed = self._missed(tried.ratio)
        if missed <= 0:
            self.best, self._below = tried, max(-missed, TINY)
        else:
            self._above = missed
        self._narrow(missed <= 0)

    def _narrow(self, kept: bool) -> None:
        """The last share was enough, or too little; an end that stays twice counts for half."""
        if kept:
            self._high = self._share
            self._above /= 2 if self._last is True else 1
        else:
            self._low = self._share
            self._below /= 2 if self._last is False else 1
        self._last = kept

    def _missed(self, found: Interval) -> float:
        """By how much the logarithm is above the target; what is no number is a great deal."""
        missed = math.log(found.high) - self._target if found.high > 0 else MUCH
        return missed if missed < MUCH else MUCH


def cover(
    groups: Sequence[Group], returned: Mapping[Suspect, Returned], share: float
) -> tuple[Group, ...]:
    """A cheap set of groups that carry a share of the damage.

    Greedily by damage a byte; what turns out not to be needed is dropped again, so that one large
    group takes the place of many small ones where it suffices.
    """
    worth = [max(0.0, sum(returned[s].value for s in group)) for group in groups]
    wanted, carried = share * sum(worth), 0.0
    chosen: set[int] = set()
    for index in sorted(range(len(groups)), key=lambda i: -worth[i] / max(1, _bytes([groups[i]]))):
        if carried >= wanted:
            break
        chosen.add(index)
        carried += worth[index]
    for index in sorted(chosen, key=lambda i: worth[i]):
        if carried - worth[index] >= wanted:
            chosen.remove(index)
            carried -= worth[index]
    return tuple(groups[index] for index in sorted(chosen))


def _bytes(groups: Sequence[Group]) -> int:
    return sum(suspect.extra_bytes for group in groups for suspect in group)


def _record(tried: Tried, limit: float, measurements: int) -> Exclusion:
    suspects = [suspect for group in tried.groups for suspect in group]
    return Exclusion(
        modules=tuple(name for s in suspects if s.quantized for name in s.stored),
        restore=tuple(name for s in suspects if not s.quantized for name in s.stored),
        limit=limit,
        perplexity_ratio=tried.ratio.value,
        perplexity_ratio_high=tried.ratio.high,
        divergence=tried.distance.mean,
        extra_bytes=tried.extra_bytes,
        measurements=measurements,
    )
