"""When the verdict on all documents is settled before the last one: numbers only.

The documents come in a random order that was fixed beforehand. The baseline's scores are known for
all of them, so each new score narrows down what the whole run can still become.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

BETS = (0.08, 0.16, 0.32, 0.60, 0.95)
"""Shares of the evidence that are staked on each document; their mean counts."""

Side = Literal["pass", "fail"]


class Settled(NamedTuple):
    """Why no further document is needed.

    Attributes:
        outcome: What the rule says on all documents.
        certain: Whether the documents that are left cannot change it; else evidence was reached.
        evidence: The e-value against the other outcome, infinite where certain.
    """

    outcome: Side
    certain: bool
    evidence: float


class Bounds(NamedTuple):
    """The range of a document's score.

    Attributes:
        low, high: Of the candidate's score, whatever it answers.
    """

    low: float
    high: float


class Sequential:
    """The full-run rule `net loss <= allowed`, decided as early as it can be.

    Both outcomes are guarded by a test martingale for sampling without replacement: while the full
    run would FAIL, the evidence for PASS is a nonnegative supermartingale that begins at 1, and
    exceeds 1 / alpha with a probability of at most alpha, however often it is looked at.

    Args:
        baseline: Scores of all documents, in the order in which the candidate's will come.
        bounds: Range of each document's score, in the same order.
        allowed: Points that may be lost net, as `paired.allowance`, exact.
        whole: Whether every score is a whole number, which narrows both outcomes down.
        higher_is_better: False for an error rate, which may grow by `allowed`.
        alpha_pass, alpha_fail: Probability of a PASS (FAIL) that the full run would not confirm;
            0 for nothing but certainty.

    Raises:
        ValueError: A score is not finite, out of its bounds or not whole, or the lengths differ.

    Source: Waudby-Smith and Ramdas 2024, https://doi.org/10.1093/jrsssb/qkad009, section 5 (betting
        without replacement); Stark 2022, https://arxiv.org/abs/2201.02707.
    """

    def __init__(
        self,
        baseline: Sequence[float],
        bounds: Sequence[Bounds],
        allowed: Fraction,
        *,
        whole: bool,
        higher_is_better: bool = True,
        alpha_pass: float = 0.01,
        alpha_fail: float = 0.01,
    ) -> None:
        sign = 1 if higher_is_better else -1
        self._baseline, self._sign = [sign * score for score in baseline], sign
        ranges = [
            sorted((sign * bound.low - b, sign * bound.high - b))
            for b, bound in zip(self._baseline, bounds, strict=True)
        ]
        if not all(low <= 0 <= high < math.inf and low > -math.inf for low, high in ranges):
            raise ValueError("a baseline's score is out of its bounds")
        if whole and any(end % 1 for pair in ranges for end in pair):
            raise ValueError("a baseline's score is not whole")
        self._low = min((low for low, _ in ranges), default=0.0)
        self._high = max((high for _, high in ranges), default=0.0)
        self._exact: type[int] | type[float] = int if whole else float
        self._ranges = [(self._exact(low), self._exact(high)) for low, high in ranges]
        # What the documents that are left can lose and gain at most.
        self._worst: float = sum(low for low, _ in self._ranges)
        self._best: float = sum(high for _, high in self._ranges)
        # The least total change that passes, and the largest (or its bound) that fails.
        self._least = -math.floor(allowed) if whole else -float(allowed)
        self._most = self._least - 1 if whole else self._least
        # Sums that are not whole are rounded: nothing within that is certain.
        self._slack = 0.0 if whole else 1e-9 * (1 + self._best - self._worst)
        alphas = {"pass": alpha_pass, "fail": alpha_fail}
        self._bars = {side: 1 / alpha if alpha else math.inf for side, alpha in alphas.items()}
        self._pass, self._fail = [1.0] * len(BETS), [1.0] * len(BETS)
        self._change: float = 0
        self.n = 0

    @property
    def evidence(self) -> dict[Side, float]:
        """The e-value for each outcome."""
        return {
            "pass": math.fsum(self._pass) / len(BETS),
            "fail": math.fsum(self._fail) / len(BETS),
        }

    def add(self, score: float) -> Settled | None:
        """The next document's score; says whether the outcome is settled now.

        Raises:
            ValueError: The score is not a number, out of its bounds or not whole.
        """
        change = float(self._sign * score - self._baseline[self.n])
        low, high = self._ranges[self.n]
        if not low <= change <= high or self._exact(change) != change:
            raise ValueError(f"document {self.n} cannot have a score of {score}")
        self._bet(change)
        self.n += 1
        self._change += self._exact(change)
        self._worst -= low
        self._best -= high
        return self.settled()

    def settled(self) -> Settled | None:
        """The outcome, where it is settled.

        At the last document it may be too close for rounded sums: the rule itself decides then.
        """
        if self._change + self._worst >= self._least + self._slack:
            return Settled("pass", True, math.inf)
        if self._change + self._best < self._least - self._slack:
            return Settled("fail", True, math.inf)
        for side, value in self.evidence.items():
            if value >= self._bars[side]:
                return Settled(side, False, value)
        return None

    def _bet(self, change: float) -> None:
        """Multiply the evidence by what this document is worth under each stake."""
        left = len(self._baseline) - self.n
        failing = (self._most - self._change) / left
        passing = (self._least - self._change) / left
        # Beyond the range of a document, that outcome is impossible: `settled` says so.
        if failing > self._low:
            gain = (change - failing) / (failing - self._low)
            self._pass = [e * (1 + bet * gain) for e, bet in zip(self._pass, BETS, strict=True)]
        if passing < self._high:
            loss = (passing - change) / (self._high - passing)
            self._fail = [e * (1 + bet * loss) for e, bet in zip(self._fail, BETS, strict=True)]
