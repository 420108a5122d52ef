"""Perplexities: no larger a ratio than the limit; what reading 16 windows settles."""

import math
from collections.abc import Callable
from decimal import Decimal

from gate import batching
from gate.errors import BaselineMismatchError, SettingsError
from gate.records import (
    Comparison,
    EarlyStop,
    EvalResult,
    Outcome,
    PerplexityResult,
)
from gate.settings import PerplexityMetric, Settings
from gate.stats import paired
from gate.verdict.outcome import finite, judged, straddles
from gate.verdict.sentences import (
    early_ratio_sentence,
    eval_hint,
    missing,
    ratio_sentence,
)

PERPLEXITY = "perplexity"
"""What stands for the task in a comparison of perplexities."""


UNQUANTIZED_BITS = 16

SCREEN_TAIL = 0.001
"""Probability with which 16 windows may condemn what all would pass, by Student's t.

Source: docs/statistics.md; with so few windows of skewed differences a nominal 1 % is up to 2.5 %.
"""


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


def condemned(
    settings: Settings, metric: PerplexityMetric, baseline: EvalResult, weight_bits: int | None
) -> Callable[[PerplexityResult, int], EarlyStop | None] | None:
    """The rule by which the first windows of a text may end it; None where nothing does.

    It only ever ends in FAIL, and only where the settings let evidence decide.
    """
    limit = ratio_limit(metric, weight_bits)
    base = baseline.perplexity(metric.perplexity.label)
    by_evidence = settings.early_stop in {"auto", "guaranteed"}
    if limit is None or base is None or not by_evidence or settings.borderline == "inconclusive":
        return None

    def rule(result: PerplexityResult, n_planned: int) -> EarlyStop | None:
        if not _above(_ratio(base, result, SCREEN_TAIL), limit):
            return None
        return EarlyStop(
            reason=f"FAIL of the whole text, {100 * (1 - SCREEN_TAIL):.1f} % sure",
            n_planned=n_planned,
            outcome="fail",
            certain=False,
        )

    return rule


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
    _require_pairs(baseline, base, result)
    read = _beside(base, result)
    ratio = _ratio(base, result)
    limit = ratio_limit(metric, weight_bits)
    outcome, borderline = _decided(base, result, limit, candidate.seed)
    sentence = ratio_sentence(name, read.value, result.value, ratio.value, limit)
    stopped = result.early_stop
    if stopped is not None:
        asked = len(result.window_nll), stopped.n_planned
        sentence = early_ratio_sentence(sentence, outcome, asked, SCREEN_TAIL)
    return Comparison(
        task=PERPLEXITY,
        metric=name,
        baseline=read.value,
        candidate=result.value,
        delta=result.value - read.value,
        retention=ratio.value,
        ci_low=finite(ratio.low),
        ci_high=finite(ratio.high),
        threshold=limit,
        n=len(result.window_nll),
        higher_is_better=False,
        method="exp(mean difference of the windows' log-likelihoods) <= max_ratio",
        outcome=outcome,
        borderline=borderline,
        early_stop=stopped,
        reason=sentence,
    )


def _decided(
    base: PerplexityResult, result: PerplexityResult, limit: Decimal | None, seed: str
) -> tuple[Outcome | None, bool]:
    """The rule on all windows, or what the first ones settle, worked out anew; if borderline."""
    if limit is None:
        return None, False
    ratio = _ratio(base, result)
    if result.early_stop is None:
        # A Decimal NaN raises where a float compares false: ask first.
        held = math.isfinite(ratio.value) and Decimal(ratio.value) <= limit
        return judged(held), straddles(ratio, limit)
    ids = result.window_ids
    committed = batching.order(range(len(base.window_nll)), seed, result.name)[: len(ids)]
    settled = list(ids) == committed and _above(_ratio(base, result, SCREEN_TAIL), limit)
    return "fail" if settled else "inconclusive", False


def _above(ratio: paired.Interval, limit: Decimal) -> bool:
    """Whether a ratio is beyond the limit for certain: its lower bound is, or it is no number."""
    return not math.isfinite(ratio.value) or ratio.low > float(limit)


def _ratio(
    base: PerplexityResult, result: PerplexityResult, tail: float = 0.025
) -> paired.Interval:
    read = _beside(base, result)
    return paired.ratio_interval(result.window_nll, read.window_nll, result.scored, tail)


def _beside(base: PerplexityResult, result: PerplexityResult) -> PerplexityResult:
    """The baseline on the windows that were read: all, unless the text was stopped."""
    if not result.window_ids:
        return base
    nll = tuple(base.window_nll[i] for i in result.window_ids)
    return base.model_copy(update={"window_nll": nll})


def _require_pairs(baseline: EvalResult, base: PerplexityResult, result: PerplexityResult) -> None:
    """Both must have read the same windows."""
    name, hint = result.name, eval_hint(baseline)
    for field in ("tokens_digest", "scored"):
        if getattr(base, field) != getattr(result, field):
            raise BaselineMismatchError(
                f"perplexity on {name}: {field} is {getattr(base, field)} in the baseline and "
                f"{getattr(result, field)} here",
                hint,
            )
    if base.early_stop is not None:
        raise BaselineMismatchError(f"perplexity on {name} was stopped early", hint)
    n, ids = len(base.window_nll), result.window_ids or range(len(base.window_nll))
    distinct = len(set(ids)) == len(ids) == len(result.window_nll)
    if not (distinct and all(0 <= i < n for i in ids)):
        raise BaselineMismatchError(
            f"perplexity on {name}: {len(result.window_nll)} windows were read, and they are not "
            f"among the baseline's {n}",
            hint,
        )
