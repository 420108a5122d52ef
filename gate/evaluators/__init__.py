"""Results of other evaluators, so that a team keeps its runner and gains the verdict."""

from collections.abc import Callable
from pathlib import Path

from gate.evaluators import lighteval, lm_eval
from gate.evaluators.logged import Logged

EVALUATORS: dict[str, Callable[[Path], Logged]] = {
    "lm-eval": lm_eval.read,
    "lighteval": lighteval.read,
}
"""Who measured, by the name that the user types."""

__all__ = ["EVALUATORS", "Logged"]
