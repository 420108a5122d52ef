"""What was decided about one checkpoint, and the report that says it."""

from decimal import Decimal
from typing import Any, Literal

from gate.records.evaluating import EvalResult
from gate.records.linting import LintResult
from gate.records.scoring import EarlyStop
from gate.records.storing import SCHEMA_VERSION, Record
from gate.records.trusting import Policy
from gate.records.weighing import Size

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
        noise: How far a true retention may lie from the limit, and these documents still decide
            either way in more than 1 % of runs.
        method: The deciding rule in words.
        outcome: None for an advisory metric.
        borderline: The interval straddles the limit.
        early_stop: Why `n` is less than the task has; baseline and candidate are then those of the
            documents that were asked.
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
    noise: float | None = None
    method: str
    outcome: Outcome | None
    borderline: bool = False
    early_stop: EarlyStop | None = None
    reason: str


class CanaryAnswer(Record):
    """A prompt on which the candidate degenerated and the baseline did not.

    Attributes:
        prompt, baseline, candidate: Texts; None where they are private or were not kept.
    """

    task: str
    doc_id: int
    defect: str
    prompt: str | None
    baseline: str | None
    candidate: str | None


class Flip(Record):
    """A document that both models scored differently.

    Attributes:
        gained: Whether the candidate did better.
        parts: What it lost or gained, where the document names its parts.
        prompt, baseline, candidate: Texts; None where they are private or were not kept.
    """

    task: str
    metric: str
    doc_id: int
    gained: bool
    parts: tuple[str, ...] = ()
    prompt: str | None
    baseline: str | None
    candidate: str | None


class InstructionChange(Record):
    """What became of one kind of instruction, over all documents that have it.

    Attributes:
        n: How often it was given.
        baseline, candidate: How often it was followed, in points.
    """

    task: str
    metric: str
    kind: str
    n: int
    baseline: float
    candidate: float


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
    """Which baseline was used.

    Attributes:
        fingerprint: See `baseline.fingerprint`; None in reports of versions without one.
    """

    path: str
    model: str
    revision: str | None
    weights_digest: str
    date: str
    device: str
    fingerprint: str | None = None
    warnings: tuple[str, ...] = ()


class Report(Record):
    """The one input of every report format.

    Attributes:
        checkpoint: What the user named.
        files: The weight files to which the look was limited; empty for all.
        command: The command that repeats this run.
        settings: As used, defaults filled in.
        flips: Documents that moved the deciding metrics, the first few; losses before gains.
        instructions: Kinds of instruction whose points changed, the worst first.
        private_tasks: Tasks of the user's own, whose prompts and answers are left out.
        policy: By whose settings and baselines, where those of a commit were asked for.
        reused_from: When the same bytes were measured, where their stored result was used.
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
    flips: tuple[Flip, ...] = ()
    instructions: tuple[InstructionChange, ...] = ()
    private_tasks: tuple[str, ...] = ()
    policy: Policy | None = None
    reused_from: str | None = None
    date: str
    duration_s: float
