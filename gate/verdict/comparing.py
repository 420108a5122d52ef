"""Every metric of the settings, candidate against baseline."""

from gate import stopping
from gate.records import (
    Comparison,
    EvalResult,
)
from gate.settings import PerplexityMetric, Settings, Speed
from gate.verdict.combining import combined
from gate.verdict.drifting import compare_drift
from gate.verdict.outcome import by_policy
from gate.verdict.rerunning import task_rerun, text_rerun
from gate.verdict.soundness import check_baseline
from gate.verdict.speed import UNCLEAR, compare_speed
from gate.verdict.tasks import Early, compare_task, paired_results
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
        BaselineError: The baseline leaves too small a budget to gate on, or is broken.
        SettingsError: A metric that the task does not have, or a limit that must be given.
    """
    check_baseline(settings, baseline)
    early = Early(candidate.seed, len(stopping.gating_metrics(settings, baseline)), settings)
    plain = candidate.format is None and candidate.runtime_quantization is None
    bits = UNQUANTIZED_BITS if plain else weight_bits
    found: dict[tuple[str, str], Comparison] = {}
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            if metric.advisory and candidate.perplexity(metric.perplexity.label) is None:
                continue  # longer windows than the model's context
            made = [text_rerun(compare_perplexity(metric, baseline, candidate, bits), baseline)]
            made += compare_drift(metric, baseline, candidate)
        else:
            made = [
                task_rerun(compare_task(metric, base, result, early), baseline, base)
                for base, result in paired_results(metric, baseline, candidate)
            ]
        for comparison in made:
            key = comparison.task, comparison.metric
            # A metric may come twice: by name with a limit, and among all of its task's.
            if key not in found or found[key].outcome is None:
                found[key] = comparison
    together = combined(settings, baseline, candidate, found, early)
    judged = [by_policy(comparison, settings.borderline) for comparison in together]
    if candidate.throughput is not None:
        limits = settings.speed or Speed()
        speeds = compare_speed(limits, baseline.throughput, candidate.throughput)
        judged += [by_policy(speed, settings.borderline, UNCLEAR) for speed in speeds]
    return tuple(judged)
