"""The sentences that state a decision."""

import math
from collections.abc import Sequence
from decimal import Decimal

from gate import baseline as baselines
from gate.errors import BaselineMismatchError
from gate.records import (
    CanaryAnswer,
    Comparison,
    EvalResult,
    LintResult,
    Outcome,
)
from gate.stats import paired
from gate.stats.sequential import Settled


def missing(baseline: EvalResult, name: str) -> BaselineMismatchError:
    """The error that the baseline lacks what is asked."""
    return BaselineMismatchError(
        f"the baseline of {baseline.model} has no {name}", eval_hint(baseline)
    )


def eval_hint(baseline: EvalResult) -> str:
    """How the baseline is made again."""
    command = baselines.eval_command(baseline.model, baseline.revision)
    return f"Make it again with these settings: {command}"


def points(value: float) -> str:
    """Points without needless digits."""
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.2f}"


def budget_sentence(
    name: str,
    allowed: float | None,
    moved: paired.Change,
    retention: float,
    min_score: Decimal | None = None,
    whose: str = "the baseline",
) -> str:
    """For example: "ifeval acc: may lose 20 net, lost 12 (28 lost, 16 gained); 0.970 retained"."""
    if math.isnan(moved.net_loss):
        return f"{name}: a score is not a number"
    net = moved.net_loss
    did = f"gained {points(-net)}" if net < 0 else f"lost {points(net)}"
    may = f"may lose {points(float(allowed))} net, " if allowed is not None else ""
    if may and min_score is not None:
        may = f"may lose {points(float(allowed or 0))} net to a score of {min_score}, "
    sides = f"({points(moved.losses)} lost, {points(moved.gains)} gained)"
    share = f"; {retention:.3f} of {whose}" if math.isfinite(retention) else ""
    return f"{name}: {may}{did}{' net' if not may else ''} {sides}{share}"


def early_sentence(
    name: str,
    settled: Settled | None,
    moved: paired.Change,
    allowed: float,
    asked: tuple[int, int],
) -> str:
    """For example: "ifeval acc: FAIL after 541 documents, ...; may lose 20 net, lost 12 so far"."""
    seen, planned = asked
    lost = f"may lose {points(float(allowed))} net, lost {points(moved.net_loss)} so far"
    if settled is None:
        return f"{name}: not settled after {seen} of {planned} documents; {lost}"
    sure = "nothing can change that" if settled.certain else "the full run agrees with 99 %"
    return f"{name}: {settled.outcome.upper()} after {seen} of {planned} documents, {sure}; {lost}"


def ratio_sentence(
    name: str, baseline: float, candidate: float, ratio: float, limit: Decimal | None
) -> str:
    """For example: "perplexity on x is 1.541 times the baseline's (14.27 to 21.99)"."""
    if math.isnan(ratio):
        return f"perplexity on {name} is not a number"
    digits = 3
    # Never "1.100 times, at most 1.10 is allowed" for a ratio of 1.1002.
    while limit is not None and digits < 9 and round(ratio, digits) == float(limit) != ratio:
        digits += 1
    allowed = f"; at most {limit} is allowed" if limit is not None else ""
    return (
        f"perplexity on {name} is {ratio:.{digits}f} times the baseline's "
        f"({baseline:.2f} to {candidate:.2f}){allowed}"
    )


def early_ratio_sentence(
    sentence: str, outcome: Outcome | None, asked: tuple[int, int], tail: float
) -> str:
    """For example: "perplexity on x is ...; FAIL after 16 of 56 windows, 99.9 % sure"."""
    seen, planned = asked
    if outcome != "fail":
        return f"{sentence}; not settled after {seen:,} of {planned:,} windows"
    return f"{sentence}; FAIL after {seen:,} of {planned:,} windows, {100 * (1 - tail):.1f} % sure"


def degenerate(answer: CanaryAnswer) -> str:
    """What the canary says of one answer."""
    return (
        f"{answer.task} document {answer.doc_id}: {answer.defect}; "
        "the baseline's answer to the same prompt is sound"
    )


def nothing_gates(lint: LintResult, comparisons: Sequence[Comparison]) -> str:
    """Why nothing could fail."""
    if comparisons:
        return "no lint errors; no metric has a limit, so none could fail"
    ran = len(lint.rules_run)
    skipped = f", {len(lint.skipped)} skipped" if lint.skipped else ""
    return f"no errors: {ran} {'rule' if ran == 1 else 'rules'} ran{skipped}"


def what_helps(lint: LintResult, unquantized: str) -> str:
    """What helps a quantized checkpoint that has lost too much."""
    if lint.format is None:
        return unquantized
    algorithms = "/".join(lint.algorithms) or lint.format
    if "FP8" in algorithms and "4" not in algorithms:
        return (
            f"Export again and check the calibration: {algorithms} seldom loses this much unless "
            "scales are wrong or were calibrated on too little text."
        )
    return (
        f"Keep the most sensitive layers ({algorithms} usually suffers most in down_proj and in "
        "the first and last blocks) in FP8 or BF16, or recalibrate on text like the one judged."
    )
