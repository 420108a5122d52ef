"""What another run of the same model would say: numbers only.

Greedy answers hang on which prompts shared a batch, since a batch's shape decides in which order a
runtime adds. A model that runs twice therefore differs from itself, and its verdict may.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

RULE_OF_THREE = 3.0
"""None seen in n: the share is below 3 / n with 95 %.

Source: Hanley and Lippman-Hand 1983, doi 10.1001/jama.1983.03330370053031.
"""


def difference(first: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Share of documents that scored otherwise, and the mean squared difference; NaN without any.

    Raises:
        ValueError: The two differ in length.
    """
    changes = [b - a for a, b in zip(first, other, strict=True)]
    if not changes:
        return math.nan, math.nan
    n = len(changes)
    return sum(change != 0 for change in changes) / n, math.fsum(c * c for c in changes) / n


def mean_square(measured: float, n: int, weights: Sequence[float]) -> float:
    """The mean squared difference of a score between two runs; its upper bound if none was seen.

    Args:
        measured: On `n` documents, counted once for every run after the first.
        weights: Points that each document of the task can reach: the most that it can move.
    """
    if measured > 0 or not weights:
        return measured
    largest = math.fsum(weight * weight for weight in weights) / len(weights)
    return min(1.0, RULE_OF_THREE / n) * largest if n else largest


def other_side(net_loss: float, allowed: float, n: int, square: float, whole: bool) -> float:
    """Probability that another run of the candidate falls on the other side of its limit.

    A rerun changes the net loss by the sum over documents of the difference of two exchangeable
    scores: its mean is 0 and, documents being independent, its variance n * square. For
    scores of 0 and 1 the mean square is the share of flips; where a document is worth several
    points it is not, and the share alone would be too small or too large. Whole scores change the
    verdict halfway between the last net loss that passes and the first that fails.

    Args:
        net_loss: Points lost less points gained.
        allowed: Points that may be lost net.
        n: Documents.
        square: Mean squared difference of a document's score between two runs.
        whole: Whether every score is a whole number.

    Returns:
        0..0.5; NaN where the net loss is no number.

    Source: the normal approximation of a sum with its continuity correction.
    """
    edge = math.floor(allowed) + 0.5 if whole else allowed
    distance = abs(edge - net_loss)
    spread = math.sqrt(n * square)
    if math.isnan(distance) or math.isnan(spread):
        return math.nan
    if spread == 0:
        return 0.0 if distance else 0.5
    return NormalDist().cdf(-distance / spread)


def proportion(count: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share seen `count` times in `n`; 0..1 without any.

    Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(count, n - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 0.975)) if count < n else 1.0
    return low, high
