"""Findings and comparisons become an outcome."""

from collections.abc import Sequence

from gate.records import (
    CanaryAnswer,
    Comparison,
    LintResult,
    Verdict,
)
from gate.verdict.combining import TOGETHER
from gate.verdict.drifting import DRIFT
from gate.verdict.sentences import (
    degenerate,
    nothing_gates,
    what_helps,
)
from gate.verdict.speed import FASTER, RUN_MORE, SPEED
from gate.verdict.texts import PERPLEXITY

MEASURE_MORE = (
    "Measure more documents or windows, or let the figure decide: borderline: point in "
    "quant-gate.yaml."
)


def decide(
    lint: LintResult, comparisons: Sequence[Comparison], canary: Sequence[CanaryAnswer] = ()
) -> Verdict:
    """PASS if there is no lint error, no canary answer, and every gating metric passes."""
    if lint.errors:
        first = lint.errors[0]
        return Verdict(
            outcome="fail",
            reasons=tuple(f"{error.rule}: {error.message}" for error in lint.errors),
            fix=first.fix,
            stage="lint",
            comparisons=tuple(comparisons),
        )
    if canary:
        return Verdict(
            outcome="fail",
            reasons=tuple(degenerate(answer) for answer in canary),
            fix=what_helps(
                lint,
                "Compare both answers below; broken scales or another chat template are usual.",
            ),
            stage="canary",
            comparisons=tuple(comparisons),
            canary=tuple(canary),
        )
    gating = [comparison for comparison in comparisons if comparison.outcome is not None]
    failed = [comparison for comparison in gating if comparison.outcome != "pass"]
    # Beside one that failed, another may not have been settled any more.
    failed.sort(key=lambda found: (found.outcome != "fail", found.task not in TOGETHER))
    # What decides comes first: suites together, and of metrics that pass, those that hardly do.
    ordered = failed or sorted(gating, key=lambda c: (c.task not in TOGETHER, not c.borderline))
    reasons = tuple(comparison.reason for comparison in ordered)
    if not failed:
        return Verdict(
            outcome="pass",
            reasons=reasons or (nothing_gates(lint, comparisons),),
            fix=None,
            stage="evaluation" if comparisons else "lint",
            comparisons=tuple(comparisons),
        )
    only_perplexity = all(comparison.task in {PERPLEXITY, DRIFT} for comparison in failed)
    return Verdict(
        outcome=failed[0].outcome or "fail",
        reasons=reasons,
        fix=_fix(lint, failed),
        stage="perplexity" if only_perplexity else "evaluation",
        comparisons=tuple(comparisons),
    )


def _fix(lint: LintResult, failed: Sequence[Comparison]) -> str:
    """What helps against metrics that did not pass, the one that decides first."""
    slow = all(found.task == SPEED for found in failed)
    if failed[0].outcome == "inconclusive":
        return RUN_MORE if slow else MEASURE_MORE
    if slow:
        return FASTER
    return what_helps(lint, "Check that the candidate was made from the baseline's model.")
