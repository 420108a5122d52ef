"""What a figure and its interval say beside a limit."""

import math
from decimal import Decimal

from gate.records import (
    Comparison,
    Outcome,
)
from gate.settings import Borderline
from gate.stats import paired


def judged(passed: bool) -> Outcome:
    """PASS or FAIL."""
    return "pass" if passed else "fail"


def straddles(interval: paired.Interval, limit: Decimal | float) -> bool:
    """Whether the interval holds the limit: these documents cannot tell the two sides apart."""
    return interval.low <= float(limit) <= interval.high


def finite(value: float) -> float | None:
    """The value, None where it is no number."""
    return value if math.isfinite(value) else None


def by_policy(
    comparison: Comparison,
    policy: Borderline,
    why: str = "the limit is inside its 95 % interval",
) -> Comparison:
    """What the settings make of a metric whose interval holds the limit."""
    if policy in {"point", "escalate"} or not comparison.borderline or comparison.outcome is None:
        return comparison
    outcome: Outcome = "fail" if policy == "block" else "inconclusive"
    if outcome == comparison.outcome:
        return comparison
    reason = f"{comparison.reason}; {why} (borderline: {policy})"
    return comparison.model_copy(update={"outcome": outcome, "reason": reason})
