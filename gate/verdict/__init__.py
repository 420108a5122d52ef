"""Findings and comparisons become an outcome.

The deciding rule is the user's own, on all documents: no more points lost net than the limit
allows, no larger a perplexity ratio. Intervals are shown and decide nothing.
"""

from gate.verdict.combining import MEAN, POOLED
from gate.verdict.comparing import compare
from gate.verdict.deciding import MEASURE_MORE, decide
from gate.verdict.drifting import DRIFT, require_distributions
from gate.verdict.released import compare_released, require_points, with_released
from gate.verdict.soundness import MIN_BUDGET, check_baseline
from gate.verdict.speed import PEAK_MEMORY, SPEED, SPEED_METRIC, speed_concerns
from gate.verdict.suites import concerns, suite_outcomes
from gate.verdict.texts import PERPLEXITY, condemned, ratio_limit

__all__ = [
    "DRIFT",
    "MEAN",
    "MEASURE_MORE",
    "MIN_BUDGET",
    "PEAK_MEMORY",
    "PERPLEXITY",
    "POOLED",
    "SPEED",
    "SPEED_METRIC",
    "check_baseline",
    "compare",
    "compare_released",
    "concerns",
    "condemned",
    "decide",
    "ratio_limit",
    "require_distributions",
    "require_points",
    "speed_concerns",
    "suite_outcomes",
    "with_released",
]
