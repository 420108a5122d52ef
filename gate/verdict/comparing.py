"""Every metric of the settings, candidate against baseline."""

from gate import stopping
from gate.records import (
    Comparison,
    EvalResult,
)
from gate.settings import PerplexityMetric, Settings
from gate.verdict.outcome import by_policy
from gate.verdict.tasks import Early, check_budgets, compare_task, paired_results
from gate.verdict.texts import UNQUANTIZED_BITS, compare_perplexity


def compare(
    settings: Settings, baseline: EvalResult, candidate: EvalResult, weight_bits: int | None
) -> tuple[Comparison, ...]:
    """Every metric of the settings, candidate against baseline, in the settings' order.

    Args:
        weight_bits: What the candidate declares for its weights; None if unknown. An
            unquantized candidate counts as 16 bits.

    Raises:
        BaselineMismatchError: The baseline lacks a metric, or measured other documents.
        BaselineError: The baseline leaves too small a budget to gate on.
        SettingsError: A metric that the task does not have, or a limit that must be given.
    """
    check_budgets(settings, baseline)
    early = Early(candidate.seed, len(stopping.gating_metrics(settings, baseline)))
    bits = UNQUANTIZED_BITS if candidate.format is None else weight_bits
    found: dict[tuple[str, str], Comparison] = {}
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            made = [compare_perplexity(metric, baseline, candidate, bits)]
        else:
            made = [
                compare_task(metric, base, result, early)
                for base, result in paired_results(metric, baseline, candidate)
            ]
        for comparison in made:
            key = comparison.task, comparison.metric
            # A metric may come twice: by name with a limit, and among all of its task's.
            if key not in found or found[key].outcome is None:
                found[key] = comparison
    return tuple(by_policy(comparison, settings.borderline) for comparison in found.values())
