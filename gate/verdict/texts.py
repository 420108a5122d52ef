"""Perplexities: no larger a ratio than the limit."""

import math
from decimal import Decimal

from gate.errors import BaselineMismatchError, SettingsError
from gate.records import (
    Comparison,
    EvalResult,
)
from gate.settings import PerplexityMetric
from gate.stats import paired
from gate.verdict.outcome import finite, judged, straddles
from gate.verdict.sentences import (
    eval_hint,
    missing,
    ratio_sentence,
)

PERPLEXITY = "perplexity"
"""What stands for the task in a comparison of perplexities."""


UNQUANTIZED_BITS = 16


def ratio_limit(metric: PerplexityMetric, weight_bits: int | None) -> Decimal | None:
    """The perplexity ratio that is allowed; None for an advisory metric.

    `by-weight-bits` is a tripwire: published NF4 and NVFP4 of Llama-3.1-8B lie at 1.05 and 1.10.

    Raises:
        SettingsError: Below four bits, or unknown ones: there is no usual loss.
    """
    if metric.max_ratio is None or isinstance(metric.max_ratio, Decimal):
        return metric.max_ratio
    if weight_bits is not None and weight_bits >= 8:
        return Decimal("1.02")
    if weight_bits is not None and weight_bits >= 4:
        return Decimal("1.15")
    bits = "an unknown number of" if weight_bits is None else str(weight_bits)
    raise SettingsError(
        f"perplexity on {metric.perplexity.label}: no usual limit is known for weights "
        f"of {bits} bits",
        "Give a number for max_ratio in quant-gate.yaml, for example 1.5.",
    )


def compare_perplexity(
    metric: PerplexityMetric, baseline: EvalResult, candidate: EvalResult, weight_bits: int | None
) -> Comparison:
    """Perplexity on one text, window by window."""
    name = metric.perplexity.label
    base, result = baseline.perplexity(name), candidate.perplexity(name)
    if base is None:
        raise missing(baseline, f"perplexity on {name}")
    if result is None:
        raise SettingsError(
            f"perplexity on {name} was not measured", "Evaluate with these settings."
        )
    for field in ("tokens_digest", "scored"):
        if getattr(base, field) != getattr(result, field):
            raise BaselineMismatchError(
                f"perplexity on {name}: {field} is {getattr(base, field)} in the baseline and "
                f"{getattr(result, field)} here",
                eval_hint(baseline),
            )
    ratio = paired.ratio_interval(result.window_nll, base.window_nll, result.scored)
    limit = ratio_limit(metric, weight_bits)
    outcome = None
    if limit is not None:
        # A Decimal NaN raises where a float compares false: ask first.
        outcome = judged(math.isfinite(ratio.value) and Decimal(ratio.value) <= limit)
    return Comparison(
        task=PERPLEXITY,
        metric=name,
        baseline=base.value,
        candidate=result.value,
        delta=result.value - base.value,
        retention=ratio.value,
        ci_low=finite(ratio.low),
        ci_high=finite(ratio.high),
        threshold=limit,
        n=len(result.window_nll),
        higher_is_better=False,
        method="exp(mean difference of the windows' log-likelihoods) <= max_ratio",
        outcome=outcome,
        borderline=limit is not None and straddles(ratio, limit),
        reason=ratio_sentence(name, base.value, result.value, ratio.value, limit),
    )
