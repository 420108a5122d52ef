"""What was decided about one checkpoint, and the report that says it."""

from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from gate.records.answering import AnswerStats
from gate.records.diagnosing import Diagnosis
from gate.records.evaluating import EvalResult
from gate.records.linting import LintResult
from gate.records.repeating import Rerun
from gate.records.scoring import EarlyStop
from gate.records.storing import SCHEMA_VERSION, Record, Sha256
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
        absolute: Whether it limits the candidate's figure itself, not `retention`.
        n: Documents or windows; of a speed, runs.
        budget: Points that may be lost net, whole where scores are; None if that is no rule.
        higher_is_better: False for perplexity and for error rates.
        net_loss, losses, gains: Points lost less points gained, lost, and gained.
        flips: Share of documents whose score changed.
        noise: How far a true retention may lie from the limit, and these documents still decide
            either way in more than 1 % of runs.
        rerun_flips: Probability that another run of the candidate falls on the other side of the
            limit; None where the baseline was not repeated, or its metric was stopped early.
        rerun: How far the baseline differed from itself; where it never did, `rerun_flips` is what
            the probability is below with 95 %.
        method: The deciding rule in words.
        outcome: None for an advisory metric.
        min_score: The score that must be reached whatever the baseline has; None for none.
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
    absolute: bool = False
    n: int
    budget: int | float | None = None
    higher_is_better: bool = True
    net_loss: float | None = None
    losses: float | None = None
    gains: float | None = None
    flips: float | None = None
    noise: float | None = None
    rerun_flips: float | None = None
    rerun: Rerun | None = None
    method: str
    outcome: Outcome | None
    min_score: Decimal | None = None
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


class Concern(Record):
    """Something that a reader should know beside the verdict; it decides nothing by itself.

    Attributes:
        kind: What it is about in one or two words with hyphens, such as `implausible-gain`.
        message: One sentence with the figures.
        fix: What to do about it, in one sentence.
    """

    kind: str
    message: str
    fix: str


class SuiteOutcome(Record):
    """What one suite says, by the metric that decides it.

    Attributes:
        metric: Task and metric, or the text; the first one of an advisory suite.
        retention: As in the metric's comparison; None where it was not measured.
        limit: What `retention` is held to: the metric's own limit, or the floor where another
            figure decides; None without one.
        higher_is_better: Whether the limit is the least, else the most that it may be.
        outcome: None where it decides nothing or was not needed.
        note: What else there is to say, such as why it was not run; empty for nothing.
    """

    name: str
    tier: Literal["gating", "advisory"]
    metric: str
    retention: float | None
    limit: Decimal | None
    higher_is_better: bool = True
    outcome: Outcome | None
    note: str = ""


class Verdict(Record):
    """What was decided, why, and what to do.

    Attributes:
        reasons: The deciding sentences, most important first.
        fix: What to do about a FAIL; None for a PASS.
        stage: Where it was decided.
        suites: One entry a suite, where the settings group their metrics.
        concerns: What a reader should know beside it, most important first.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    fix: str | None
    stage: Literal["lint", "perplexity", "canary", "evaluation"]
    comparisons: tuple[Comparison, ...] = ()
    canary: tuple[CanaryAnswer, ...] = ()
    suites: tuple[SuiteOutcome, ...] = ()
    concerns: tuple[Concern, ...] = ()


class BaselineInfo(Record):
    """Which baseline was used.

    Attributes:
        fingerprint: See `baseline.fingerprint`; None in reports of versions without one.
        answer_stats: Of the documents that the candidate was asked.
    """

    path: str
    model: str
    revision: str | None
    weights_digest: str
    date: str
    device: str
    fingerprint: str | None = None
    warnings: tuple[str, ...] = ()
    answer_stats: tuple[AnswerStats, ...] = ()


class Previous(Record):
    """The last checkpoint of this name that passed, and what has become of its figures.

    Attributes:
        content: SHA-256 of its report, as the history keeps it.
        date: When it was judged.
        run_id: GitHub's run in which it was judged; None elsewhere.
        comparisons: Its figures as `baseline`, on the documents that both were asked.
        missing: What could not be compared, and why: a sentence each.
    """

    content: Sha256
    revision: str | None = None
    weights_digest: str
    date: str
    run_id: int | None = None
    comparisons: tuple[Comparison, ...] = ()
    missing: tuple[str, ...] = ()


class Report(Record):
    """The one input of every report format.

    Attributes:
        checkpoint: What the user named.
        files: The weight files to which the look was limited; empty for all.
        runtime_quantization: How the runtime was to quantize the weights while it loaded them, in
            words: then that is judged. None where they are taken as they are stored.
        command: The command that repeats this run.
        settings: As used, defaults filled in.
        flips: Documents that moved the deciding metrics, the first few; losses before gains.
        instructions: Kinds of instruction whose points changed, the worst first.
        private_tasks: Tasks of the user's own, whose prompts and answers are left out.
        diagnosis: Where a failed candidate is hurt, where the settings ask for it.
        policy: By whose settings and baselines, where those of a commit were asked for.
        policy_digest: SHA-256 over the settings, baselines and tasks that decided.
        digests: SHA-256 of every file of the checkpoint, where it was evaluated.
        run_id: GitHub's run in which it was judged; None elsewhere.
        reused_from: When the same bytes were measured, where their stored result was used.
        reused_run: GitHub's run in which they were, where it was one.
        previous: What last passed under this name, where a history is kept.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    checkpoint: str
    revision: str | None
    files: tuple[str, ...] = ()
    runtime_quantization: str | None = None
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
    diagnosis: Diagnosis | None = None
    policy: Policy | None = None
    policy_digest: str | None = None
    digests: dict[str, str] = Field(default={})
    run_id: int | None = None
    reused_from: str | None = None
    reused_run: int | None = None
    previous: Previous | None = None
    date: str
    duration_s: float
