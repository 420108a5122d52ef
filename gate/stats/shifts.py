"""Whether answers of the same documents moved together: rare alarms, and none for small moves.

Two runs of sound models differ in many answers, as often one way as the other. So only what moved
in one direction counts, at 0.1 % for chance, and only where enough of it moved to matter.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALPHA = 0.001
"""Probability of an alarm where both models behave alike, for each check."""


class Shift(NamedTuple):
    """In how many documents something came about, and in how many it went away."""

    came: int
    went: int
    n: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> "Shift":
        """Of a property of the same documents."""
        pairs = list(zip(before, after, strict=True))
        return cls(
            sum(new and not old for old, new in pairs),
            sum(old and not new for old, new in pairs),
            len(pairs),
        )

    def p_rise(self) -> float:
        """Exact probability of so many or more, where both directions are as likely.

        Source: McNemar, Psychometrika 12 (1947), as a one-sided exact sign test.
        """
        from scipy.stats import binom

        return float(binom.sf(self.came - 1, self.came + self.went, 0.5))

    def rose(self, at_least: float, alpha: float = ALPHA) -> bool:
        """Whether it came about more often than chance explains, in that share of documents net."""
        net = self.came - self.went
        return self.n > 0 and net >= at_least * self.n and self.p_rise() <= alpha


def mean_ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Geometric mean of after / before, and the probability of a larger move by chance.

    Args:
        before, after: Positive, of the same documents.

    Returns:
        The ratio, and the p-value of the two-sided paired t-test on logarithms; NaN and 1.0 for
        fewer than two documents.
    """
    if len(before) < 2:
        return math.nan, 1.0
    logs = np.log(np.asarray(after, dtype=float) / np.asarray(before, dtype=float))
    mean, spread = float(logs.mean()), float(logs.std(ddof=1))
    if spread == 0:
        return math.exp(mean), 0.0 if mean else 1.0
    from scipy.stats import t

    statistic = abs(mean) / (spread / math.sqrt(len(logs)))
    return math.exp(mean), float(2 * t.sf(statistic, len(logs) - 1))
