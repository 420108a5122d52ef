"""What was decided about one checkpoint, and the report that says it."""

from decimal import Decimal
from typing import Any, Literal

from gate.records.evaluating import EvalResult, Size
from gate.records.linting import LintResult
from gate.records.storing import SCHEMA_VERSION, Record

Outcome = Literal["pass", "fail", "inconclusive"]


class Comparison(Record):
    """One metric, candidate against baseline, on the same documents.

    Attributes:
        delta: candidate - baseline.
        retention: candidate / baseline; for perplexity the ratio exp(mean paired difference).
        ci_low, ci_high: 95 % interval of `retention`, paired.
        threshold: The limit as written in the settings; None for an advisory metric.
        n: Documents or windows.
        budget: Points that may be lost net, whole where scores are; None if that is no rule.
        higher_is_better: False for perplexity and for error rates.
        net_loss, losses, gains: Points lost less points gained, lost, and gained.
        flips: Share of documents whose score changed.
        method: The deciding rule in words.
        outcome: None for an advisory metric.
        borderline: The interval straddles the limit.
        reason: One sentence with the figures that decided.
    """

    task: str
    metric: str
    baseline: float
    candidate: float
    delta: float
    retention: float
    ci_low: float | None
    ci_high: float | None
    threshold: Decimal | None
    n: int
    budget: int | float | None = None
    higher_is_better: bool = True
    net_loss: float | None = None
    losses: float | None = None
    gains: float | None = None
    flips: float | None = None
    method: str
    outcome: Outcome | None
    borderline: bool = False
    reason: str


class CanaryAnswer(Record):
    """A prompt on which the candidate degenerated and the baseline did not."""

    task: str
    doc_id: int
    defect: str
    prompt: str
    baseline: str
    candidate: str


class Verdict(Record):
    """What was decided, why, and what to do.

    Attributes:
        reasons: The deciding sentences, most important first.
        fix: What to do about a FAIL; None for a PASS.
        stage: Where it was decided.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    fix: str | None
    stage: Literal["lint", "perplexity", "canary", "evaluation"]
    comparisons: tuple[Comparison, ...] = ()
    canary: tuple[CanaryAnswer, ...] = ()


class BaselineInfo(Record):
    """Which baseline was used."""

    path: str
    model: str
    revision: str | None
    weights_digest: str
    date: str
    device: str
    warnings: tuple[str, ...] = ()


class Report(Record):
    """The one input of every report format.

    Attributes:
        checkpoint: What the user named.
        files: The weight files to which the look was limited; empty for all.
        command: The command that repeats this run.
        settings: As used, defaults filled in.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    checkpoint: str
    revision: str | None
    files: tuple[str, ...] = ()
    command: str
    settings: dict[str, Any]
    lint: LintResult
    size: Size | None
    evaluation: EvalResult | None
    baseline: BaselineInfo | None
    verdict: Verdict
    date: str
    duration_s: float
