"""Distributions: no farther from the baseline's than the limits allow, where there are limits."""

import math
from decimal import Decimal

from gate.errors import BaselineError, BaselineMismatchError, SettingsError
from gate.records import Comparison, Drift, EvalResult
from gate.settings import PerplexityMetric, Settings
from gate.stats import paired
from gate.verdict.outcome import finite, judged, straddles
from gate.verdict.sentences import eval_hint

DRIFT = "drift"
"""What stands for the task in a comparison of distributions."""


def require_distributions(settings: Settings, baseline: EvalResult, why: str) -> None:
    """Refuse limits on what this baseline cannot tell. Needs no candidate.

    Args:
        why: What is wrong with the distributions that were stored; empty if nothing.

    Raises:
        SettingsError: They are not kept at all.
        BaselineError: The baseline has none, or they cannot be read.
    """
    for metric in settings.perplexity_metrics:
        if not metric.limits_drift:
            continue
        name = metric.perplexity.label
        if not settings.top_tokens:
            raise SettingsError(
                f"max_kl and min_same_top on {name} need the baseline's distributions, and "
                "top_tokens: 0 keeps none",
                "Remove top_tokens from quant-gate.yaml, and make the baseline again.",
            )
        if why:
            raise BaselineError(why, eval_hint(baseline))
        if baseline.distribution(name) is None:
            raise BaselineError(
                f"the baseline of {baseline.model} has no distributions of {name}, on which "
                "max_kl and min_same_top rest",
                eval_hint(baseline),
            )


def compare_drift(
    metric: PerplexityMetric, baseline: EvalResult, candidate: EvalResult
) -> list[Comparison]:
    """A row for each limit; none for a text whose perplexity has settled the verdict before.

    Raises:
        BaselineMismatchError: They were compared with another baseline's, or not at all.
    """
    name = metric.perplexity.label
    result = candidate.perplexity(name)
    if not metric.limits_drift or result is None or result.early_stop is not None:
        return []
    found, stored = candidate.drift(name), baseline.distribution(name)
    if found is None or stored is None or found.distributions != stored.digest:
        raise BaselineMismatchError(
            f"the distributions of {name} were not compared with this baseline's",
            "Judge the checkpoint against it: gate check CHECKPOINT --baseline BASELINE",
        )
    rows = []
    if metric.max_kl is not None:
        rows.append(_kl(name, found, metric.max_kl))
    if metric.min_same_top is not None:
        rows.append(_same_top(name, found, metric.min_same_top))
    return rows


def _kl(name: str, found: Drift, limit: Decimal) -> Comparison:
    return _comparison(
        f"{name} KL divergence",
        found,
        limit,
        interval=_interval(found.kl, found.kl_stderr),
        baseline=0.0,
        passed=math.isfinite(found.kl) and found.kl <= limit,
        method=f"mean KL divergence over the top {found.k} tokens and the rest <= max_kl",
        reason=(
            f"the distributions over {name} lie {found.kl:.4f} nats from the baseline's (lower "
            f"bound, top {found.k}); at most {limit} is allowed"
        ),
    )


def _same_top(name: str, found: Drift, limit: Decimal) -> Comparison:
    return _comparison(
        f"{name} same top token",
        found,
        limit,
        interval=_interval(found.same_top, found.same_top_stderr),
        baseline=1.0,
        passed=math.isfinite(found.same_top) and found.same_top >= limit,
        method="share of tokens with the same most likely token >= min_same_top",
        reason=(
            f"the most likely token is the baseline's for {100 * found.same_top:.2f} % of {name}; "
            f"at least {100 * limit} % is required"
        ),
    )


def _comparison(
    metric: str,
    found: Drift,
    limit: Decimal,
    *,
    interval: paired.Interval,
    baseline: float,
    passed: bool,
    method: str,
    reason: str,
) -> Comparison:
    return Comparison(
        task=DRIFT,
        metric=metric,
        baseline=baseline,
        candidate=interval.value,
        delta=interval.value - baseline,
        retention=math.nan,
        ci_low=finite(interval.low),
        ci_high=finite(interval.high),
        threshold=limit,
        absolute=True,
        n=found.windows,
        higher_is_better=baseline > 0,
        method=method,
        outcome=judged(passed),
        borderline=straddles(interval, limit),
        reason=reason,
    )


def _interval(value: float, stderr: float | None) -> paired.Interval:
    half = paired.Z_95 * stderr if stderr is not None else float("nan")
    return paired.Interval(value, value - half, value + half)
