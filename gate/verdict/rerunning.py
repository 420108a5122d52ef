"""Whether another run of the same candidate would be judged otherwise.

The candidate is taken to differ from itself as far as the baseline did, which was measured when it
was stored.
"""

import math

from gate.records import Comparison, EvalResult, Rerun, TaskResult
from gate.stats import rerun
from gate.verdict.outcome import finite
from gate.verdict.texts import PERPLEXITY


def task_rerun(comparison: Comparison, stored: EvalResult, base: TaskResult) -> Comparison:
    """A task's comparison with how likely another run falls on the other side of its limit.

    Args:
        comparison: Of one metric.
        stored: The baseline.
        base: Its result of that metric.
    """
    seen = stored.rerun(base.task, base.metric, base.filter)
    net_loss, budget = comparison.net_loss, comparison.budget
    settled = comparison.early_stop is not None
    if seen is None or settled or net_loss is None or budget is None:
        return comparison
    weights = [sample.weight for sample in base.samples]
    square = rerun.mean_square(seen.mean_square, seen.n, weights)
    whole = isinstance(budget, int)
    return _with(comparison, seen, rerun.other_side(net_loss, budget, comparison.n, square, whole))


def text_rerun(comparison: Comparison, stored: EvalResult) -> Comparison:
    """The same of a perplexity, whose logarithm is a mean over windows, in nats a token."""
    seen = stored.rerun(PERPLEXITY, comparison.metric, "none")
    limit, ratio = comparison.threshold, comparison.retention
    settled = comparison.early_stop is not None
    if seen is None or settled or limit is None or not 0 < ratio < math.inf:
        return comparison
    n = comparison.n
    grown, allowed = n * math.log(ratio), n * math.log(limit)
    return _with(comparison, seen, rerun.other_side(grown, allowed, n, seen.mean_square, False))


def _with(comparison: Comparison, seen: Rerun, flips: float) -> Comparison:
    return comparison.model_copy(update={"rerun_flips": finite(flips), "rerun": seen})
