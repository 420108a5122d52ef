"""Findings and comparisons become an outcome.

The deciding rule is the user's own, on all documents: no more points lost net than the limit
allows, no larger a perplexity ratio. Intervals are shown and decide nothing.
"""

from gate.verdict.comparing import compare
from gate.verdict.deciding import MEASURE_MORE, decide
from gate.verdict.tasks import MIN_BUDGET, check_budgets
from gate.verdict.texts import PERPLEXITY, ratio_limit

__all__ = [
    "MEASURE_MORE",
    "MIN_BUDGET",
    "PERPLEXITY",
    "check_budgets",
    "compare",
    "decide",
    "ratio_limit",
]
