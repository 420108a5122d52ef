"""Candidate against baseline on the same documents or windows: numbers only.

Two models that answer the same prompts share most of the noise, so everything here works on
pairs: the difference of a document's two scores, or of a window's two log-likelihoods.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution: a two-sided 95 % interval."""


Z_99 = 2.3263478740408408
"""99 % quantile of the normal distribution: one-sided 1 %."""


class Interval(NamedTuple):
    """An estimate and its two-sided 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


class Change(NamedTuple):
    """What changed between baseline and candidate.

    Attributes:
        losses, gains: Points lost and gained, both >= 0.
        flips: Share of documents whose score changed, 0..1.
    """

    losses: float
    gains: float
    flips: float

    @property
    def net_loss(self) -> float:
        """Points lost less points gained."""
        return self.losses - self.gains


def total(scores: Sequence[float]) -> float:
    """The correctly rounded sum of points; NaN as soon as one score is not finite."""
    return math.fsum(scores) if all(map(math.isfinite, scores)) else math.nan


def allowance(points: float | Decimal, retention: Decimal) -> Fraction:
    """The points that may be lost, (1 - retention) * points, without rounding.

    Args:
        points: The baseline's total.
        retention: The share to be kept, as written in the settings.

    Raises:
        ValueError: `points` is NaN.
        OverflowError: `points` is infinite.
    """
    return (1 - Fraction(retention)) * Fraction(points)


def budget(points: float | Decimal, retention: Decimal) -> int:
    """The whole points that may be lost net: floor((1 - retention) * points).

    In binary floating point (1 - 0.9) * 400 is 39.999..., one point too few at every multiple
    of ten; hence exact fractions.

    Raises:
        ValueError, OverflowError: As `allowance`.
    """
    return math.floor(allowance(points, retention))


def change(candidate: Sequence[float], baseline: Sequence[float]) -> Change:
    """Losses, gains and flips of paired scores, one entry a document, more being better.

    A score that is not a number makes losses and gains NaN.

    Raises:
        ValueError: The two differ in length.
    """
    differences = [c - b for c, b in zip(candidate, baseline, strict=True)]
    if not all(map(math.isfinite, differences)):
        return Change(math.nan, math.nan, math.nan)
    flips = sum(d != 0 for d in differences) / len(differences) if differences else math.nan
    return Change(
        losses=math.fsum(-d for d in differences if d < 0),
        gains=math.fsum(d for d in differences if d > 0),
        flips=flips,
    )


def retention_interval(candidate: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Retention sum(candidate) / sum(baseline) with its paired 95 % interval.

    Fieller's residuals c - retention * b, one a document, so that all points of one document
    move together. Half a lost and half a gained point are added to their squares: a candidate
    that changed nothing on these documents is not known to change nothing at all.

    Args:
        candidate, baseline: Points by document, in the same order.

    Raises:
        ValueError: The two differ in length.

    Source: Nam and Blackwelder 2002, https://doi.org/10.1002/sim.1067; the ratio estimator with
        clusters in https://arxiv.org/abs/2411.00640 section 2.2.
    """
    pairs = list(zip(candidate, baseline, strict=True))
    b_total, c_total = total(baseline), total(candidate)
    if not b_total > 0 or not math.isfinite(c_total):
        return Interval(math.nan, math.nan, math.nan)
    retention = c_total / b_total
    squares = math.fsum((c - retention * b) ** 2 for c, b in pairs)
    pseudo = 0.5 * retention**2 + 0.5
    half = Z_95 * math.sqrt(squares + pseudo) / b_total
    return Interval(retention, retention - half, retention + half)


def noise_band(candidate: Sequence[float], baseline: Sequence[float]) -> float:
    """Half the width of the retentions that these documents cannot tell from a limit.

    A candidate whose true retention lies farther away is judged as it should be in 99 % of runs, at
    the rate at which answers were seen to change. NaN where that is not defined.

    Args:
        candidate, baseline: Points by document, in the same order.

    Raises:
        ValueError: The two differ in length.

    Source: https://arxiv.org/abs/2605.28873 (paired minimum detectable effect).
    """
    squares = [(c - b) ** 2 for c, b in zip(candidate, baseline, strict=True)]
    points = total(baseline)
    if not points > 0 or not all(map(math.isfinite, squares)):
        return math.nan
    return Z_99 * math.sqrt(math.fsum(squares)) / points


def ratio_interval(
    candidate_window_nll: Sequence[float],
    baseline_window_nll: Sequence[float],
    scored: int,
    tail: float = 0.025,
) -> Interval:
    """Ratio of two perplexities on the same windows, exp(mean difference), with its interval.

    The window is the cluster: tokens within one are not independent. Student's t, since a
    canary look has few windows; with a single one the interval is NaN.

    Args:
        candidate_window_nll, baseline_window_nll: Sums over each window's scored tokens, in nats.
        scored: Scored tokens in each window.
        tail: Probability beyond each end of the interval.

    Raises:
        ValueError: The two differ in length, or hold no window.

    Source: https://arxiv.org/abs/2411.00640 section 2.2 (clustered, paired standard errors).
    """
    from scipy.special import stdtrit

    differences = [
        (c - b) / scored for c, b in zip(candidate_window_nll, baseline_window_nll, strict=True)
    ]
    windows = len(differences)
    if not windows:
        raise ValueError("no windows")
    if not all(map(math.isfinite, differences)):
        return Interval(math.nan, math.nan, math.nan)
    mean = math.fsum(differences) / windows
    if windows < 2:
        return Interval(_exp(mean), math.nan, math.nan)
    # Of numbers beyond all bounds a power raises where a product is infinite.
    variance = math.fsum((d - mean) * (d - mean) for d in differences) / (windows - 1)
    half = float(stdtrit(windows - 1, 1 - tail)) * math.sqrt(variance / windows)
    return Interval(_exp(mean), _exp(mean - half), _exp(mean + half))


def _exp(value: float) -> float:
    """exp, infinite where a float cannot hold it."""
    return math.exp(value) if value < 709 else math.inf
