"""What each suite says, and what a reader should know beside the verdict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from gate.records import Comparison, Concern, SuiteOutcome
from gate.settings import PerplexityMetric, Settings, Suite
from gate.verdict.combining import POOLED, TOGETHER, pooled_name
from gate.verdict.drifting import DRIFT
from gate.verdict.outcome import finite
from gate.verdict.texts import PERPLEXITY

IMPLAUSIBLE = 0.05
"""Score that no quantized model gains over its own original but by another cause."""


def suite_outcomes(
    settings: Settings, comparisons: Sequence[Comparison], left_out: Mapping[str, str]
) -> tuple[SuiteOutcome, ...]:
    """One entry a suite, in the settings' order; nothing where they have none.

    Args:
        left_out: Suite to why it was not run to its end, though it was needed.
    """
    together = {
        suite.name: other.name
        for pair in settings.escalations
        for suite, other in (pair, pair[::-1])
        if any(c.task == POOLED and c.metric == pooled_name(pair) for c in comparisons)
    }
    reserve = {further.name for _, further in settings.escalations}
    return tuple(
        _outcome(
            suite,
            comparisons,
            together.get(suite.name),
            left_out.get(suite.name) or ("was not needed" if suite.name in reserve else "not run"),
        )
        for suite in settings.suites
    )


def concerns(
    settings: Settings, comparisons: Sequence[Comparison], left_out: Mapping[str, str]
) -> Iterator[Concern]:
    """A gain that quantization does not explain, and a suite that was needed and not run."""
    for comparison in comparisons:
        gain = comparison.delta if comparison.higher_is_better else -comparison.delta
        whole = comparison.early_stop is None and comparison.task not in TOGETHER
        if whole and comparison.budget is not None and gain > IMPLAUSIBLE:
            yield Concern(
                kind="implausible-gain",
                message=(
                    f"{comparison.task} {comparison.metric}: the candidate is {100 * gain:.1f} "
                    "points better than the original, which quantization does not explain"
                ),
                fix=(
                    "Check that it was made from the baseline's weights, and that the baseline was "
                    "measured the same way."
                ),
            )
    for suite, further in settings.escalations:
        if further.name in left_out:
            yield Concern(
                kind="not-escalated",
                message=(
                    f"{suite.name} was borderline, and {further.name} did not help to decide: "
                    f"{left_out[further.name]}; {suite.name} decides alone"
                ),
                fix=f"Raise budget_s of {further.name} in quant-gate.yaml.",
            )


def _outcome(
    suite: Suite, comparisons: Sequence[Comparison], other: str | None, otherwise: str
) -> SuiteOutcome:
    """One suite by the metric that decides it, else by its first.

    Args:
        other: The suite that it was decided together with.
        otherwise: What there is to say where it decided nothing.
    """
    own = [comparison for comparison in comparisons if _belongs(comparison, suite)]
    figure = suite.figure
    named = [c for c in own if figure is None or c.metric.split(",")[0] == figure.metric]
    decided = next((c for c in own if c.outcome is not None), None)
    shown = decided or next(iter(named), None)
    limit = decided.threshold if decided is not None else _stated(suite)
    note = "" if decided is not None or shown is not None else otherwise
    if suite.tier == "gating" and decided is None:
        note = otherwise
    elif suite.tier == "advisory" and shown is not None and _missed(shown, limit):
        note = "beyond its limit"
    elif other is not None:
        note = f"decided together with {other}"
    retention = shown.retention if shown is not None else math.nan
    mirrored = shown is not None and not shown.higher_is_better and shown.losses is not None
    metric = f"{figure.task} {figure.metric or ''}".strip() if figure is not None else ""
    return SuiteOutcome(
        name=suite.name,
        tier=suite.tier,
        metric=f"{shown.task} {shown.metric}" if shown is not None else metric,
        retention=finite(retention),
        limit=2 - limit if mirrored and limit is not None else limit,
        higher_is_better=shown.higher_is_better if shown is not None else figure is not None,
        outcome=decided.outcome if decided is not None else None,
        note=note,
    )


def _belongs(comparison: Comparison, suite: Suite) -> bool:
    """Whether it compares one of the suite's tasks or texts."""
    texts = [m.perplexity.label for m in suite.metrics if isinstance(m, PerplexityMetric)]
    if comparison.task == DRIFT:
        return any(comparison.metric.startswith(f"{text} ") for text in texts)
    if comparison.task == PERPLEXITY:
        return comparison.metric in texts
    return comparison.task in suite.tasks


def _stated(suite: Suite) -> Decimal | None:
    """The limit that the settings state, whether it decides or not."""
    if suite.figure is not None:
        return suite.figure.min_retention
    ratios = (m.max_ratio for m in suite.metrics if isinstance(m, PerplexityMetric))
    return next((ratio for ratio in ratios if isinstance(ratio, Decimal)), None)


def _missed(shown: Comparison, limit: Decimal | None) -> bool:
    """Whether the limit of an advisory suite is not kept; a figure that is no number keeps none."""
    if limit is None:
        return False
    if shown.higher_is_better:
        return not shown.retention >= limit
    mirrored = shown.losses is not None
    return not shown.retention <= (2 - limit if mirrored else limit)
