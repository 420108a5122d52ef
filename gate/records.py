"""Every value that is written to disk, and the one file that says how.

A record is frozen, refuses unknown fields and is written atomically. Stored documents carry
`schema_version`: an older one is read, a newer one is refused.
"""

import json
import math
import os
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from gate.errors import GateError

SCHEMA_VERSION = 1

Severity = Literal["error", "warning", "note"]
ComputePath = Literal[
    "native FP4",
    "native FP8",
    "native INT8",
    "weight-only kernel",
    "dequantized",
    "not loaded",
    "not known",
]
Outcome = Literal["pass", "fail", "inconclusive"]


class Record(BaseModel):
    """A value that may be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


R = TypeVar("R", bound=Record)


class Finding(Record):
    """One thing that a rule found (field names after SARIF).

    Attributes:
        pointer: JSON pointer into `file`, for findings about configuration.
        fix: What to do, one imperative sentence.
        ignored: The reason given in the settings; an ignored finding decides nothing.
        count: How many it stands for, where a rule found too many to list.
    """

    rule: str
    severity: Severity
    message: str
    fix: str
    tensor: str | None = None
    file: str | None = None
    pointer: str | None = None
    ignored: str | None = None
    count: int = 1


class RuleInfo(Record):
    """A rule that ran.

    Attributes:
        manual: Its manual page, as Markdown; for reports that carry one, not stored.
    """

    id: str
    severity: Severity
    summary: str
    manual: SkipJsonSchema[str] = Field(default="", exclude=True)


class Skipped(Record):
    """A rule that did not run, and why."""

    rule: str
    reason: str


class Target(Record):
    """Where a checkpoint is meant to run.

    Attributes:
        gpu: As `gate lint --gpu` names it.
        tensor_parallel: Devices that share every layer.
        memory_bytes: Of all devices together; left out, the devices' own.
        context: Tokens of one sequence.
        concurrency: Sequences at a time.
    """

    runtime: str | None = None
    gpu: str | None = None
    tensor_parallel: int = 1
    memory_bytes: int | None = None
    context: int | None = None
    concurrency: int = 1


class Execution(Record):
    """How a runtime computes the layers of one algorithm.

    Attributes:
        algorithm: As the checkpoint declares it.
        layers: How many have it.
        reason: Why it takes this path, one sentence.
        source: Where that can be checked; None where the path is not known.
        blocked_by: What stands in the way of a path that is `not loaded`.
    """

    algorithm: str
    layers: int
    path: ComputePath
    reason: str
    source: str | None = None
    blocked_by: Literal["runtime", "hardware"] | None = None


class Undivided(Record):
    """Something that cannot be shared evenly by the devices.

    Attributes:
        reason: With the figures.
        tensor: The first of the tensors that are meant; None for a figure of the architecture.
        count: How many layers are meant.
    """

    reason: str
    tensor: str | None = None
    count: int = 1


class MemoryNeed(Record):
    """Memory of one device, in bytes.

    Attributes:
        weights: As the runtime holds them, shared evenly by the devices.
        kv_cache: For the target's context and concurrency; None where it was not asked for or
            the architecture does not tell.
        kv_cache_exact: False where it is the most that the cache can take.
        workspace: Allowance for libraries, activations and logits.
        available: None where it is not known.
        notes: What the figures leave out.
    """

    weights: int
    kv_cache: int | None = None
    kv_cache_exact: bool = True
    workspace: int
    available: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All that is needed."""
        return self.weights + (self.kv_cache or 0) + self.workspace

    @property
    def fits(self) -> bool | None:
        """Whether all of it is there; None where that is not known."""
        return None if self.available is None else self.total <= self.available

    @property
    def certain(self) -> int:
        """What is needed without the allowance, and without a cache known only by its bound."""
        return self.weights + (self.kv_cache or 0) * self.kv_cache_exact


class Fit(Record):
    """How a checkpoint would run on a target.

    Attributes:
        runtime: Its name and the version that the table of support describes.
        device: The GPU's full name.
        executions: One an algorithm; empty for an unquantized checkpoint that the runtime loads.
        undivided: What tensor parallelism would split.
        memory: Of each device; None without weights.
    """

    target: Target
    runtime: str | None = None
    device: str | None = None
    executions: tuple[Execution, ...] = ()
    undivided: tuple[Undivided, ...] = ()
    memory: MemoryNeed | None = None


class Difference(Record):
    """A fact in which a checkpoint differs from its reference.

    Attributes:
        about: tokenizer, chat_template, generation_config, architecture, vocabulary or dtype.
        name: The file or field.
    """

    about: str
    name: str
    reference: str
    candidate: str


class LayerError(Record):
    """How far the decoded weights of one layer are from the reference's.

    Attributes:
        relative_rms: Root mean square of the difference over that of the reference.
        cosine: Of the angle between both, taken as vectors.
    """

    layer: str
    algo: str
    relative_rms: float
    cosine: float


class ReferenceResult(Record):
    """A checkpoint beside the unquantized one that it was made from.

    Attributes:
        layers: Quantized layers, the worst first.
        equal_tensors: Unquantized tensors that equal the reference's bit for bit.
        changed_tensors: Those that do not.
        smoothed: Whether the algorithm scales weights and norms against each other, so that
            neither can be compared.
        skipped: What was not compared, and why.
    """

    source: str
    differences: tuple[Difference, ...] = ()
    layers: tuple[LayerError, ...] = ()
    equal_tensors: int = 0
    changed_tensors: tuple[str, ...] = ()
    smoothed: bool = False
    skipped: tuple[str, ...] = ()


class LintResult(Record):
    """What static validation found. `format` is None for an unquantized checkpoint."""

    format: str | None
    algorithms: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    rules_run: tuple[RuleInfo, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    fit: Fit | None = None
    reference: ReferenceResult | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that decide: errors that the settings do not ignore."""
        return tuple(f for f in self.findings if f.severity == "error" and f.ignored is None)


class SizeBucket(Record):
    """Part of a checkpoint: stored bytes, and parameters as the model counts them."""

    stored_bytes: int
    parameters: int


class Size(Record):
    """What a checkpoint weighs, from headers alone.

    Attributes:
        stored_bytes: Tensor data on disk.
        stored_elements: As headers count them: packed values share one, scales have their own.
        parameters: Logical count: two packed FP4 values are two parameters; scales are none.
        bits_per_weight: 8 * stored_bytes / parameters.
        linear_bits_per_weight: The same over quantized layers with their scales.
        compression: Reference's stored bytes over this one's.
    """

    stored_bytes: int
    parameters: int
    bits_per_weight: float
    linear_bits_per_weight: float | None
    by_dtype: dict[str, SizeBucket]
    by_class: dict[str, SizeBucket]
    stored_elements: int | None = None
    reference_bytes: int | None = None

    @property
    def compression(self) -> float | None:
        """How many times smaller than the reference."""
        return self.reference_bytes / self.stored_bytes if self.reference_bytes else None


class SampleScore(Record):
    """One document's result (names after lm-eval).

    Attributes:
        score: Points reached, 0..weight for accuracy-like metrics.
        weight: Points that can be reached: 1, or the number of instructions of the prompt.
    """

    doc_id: int
    doc_hash: str
    prompt_hash: str
    score: float
    weight: float = 1.0


class Answer(Record):
    """What the model wrote for one document.

    Attributes:
        tokens: Generated tokens, the end token not counted.
        finish: `stop` at an end token or stop string, `length` at the limit.
    """

    doc_id: int
    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Points(Record):
    """What one document earned in one metric under one answer filter."""

    metric: str
    filter: str
    score: float
    weight: float = 1.0


class ScoredDocument(Record):
    """One document, run and scored: what the journal keeps."""

    doc_id: int
    doc_hash: str
    prompt_hash: str
    points: tuple[Points, ...]
    answer: Answer | None = None


class TaskSetup(Record):
    """How a task was asked: two results compare only where this is equal.

    Attributes:
        task_hash: lm-eval's: SHA-256 over all documents', prompts' and targets' hashes.
        documents: SHA-256 of the local documents file; None for the task's own data set.
        generation_kwargs: As handed to the model, stop strings and token limit included.
        add_bos: Whether the tokenizer put a BOS before the prompt; None if it has none.
    """

    task: str
    version: str
    task_hash: str
    n_documents: int
    output_type: str
    num_fewshot: int
    apply_chat_template: bool
    fewshot_as_multiturn: bool = False
    chat_template_kwargs: dict[str, Any] = {}
    system_instruction: str | None = None
    generation_kwargs: dict[str, Any] = {}
    add_bos: bool | None = None
    documents: str | None = None


class EarlyStop(Record):
    """Why a task ended before its last document."""

    reason: str
    n_planned: int


class TaskResult(Record):
    """One metric of one task, with every document's score, in document order."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool
    samples: tuple[SampleScore, ...]
    early_stop: EarlyStop | None = None

    @property
    def value(self) -> float:
        """Points reached over points that can be reached; NaN without samples."""
        total = math.fsum(sample.weight for sample in self.samples)
        return math.fsum(sample.score for sample in self.samples) / total if total else math.nan

    @property
    def stderr(self) -> float:
        """Standard error of `value`, the document as the cluster; NaN below two documents.

        Source: ratio estimator, arXiv 2411.00640 section 2.2.
        """
        n = len(self.samples)
        total = math.fsum(sample.weight for sample in self.samples)
        if n < 2 or not total:
            return math.nan
        value = self.value
        squares = math.fsum((s.score - value * s.weight) ** 2 for s in self.samples)
        return math.sqrt(squares * n / (n - 1)) / total


class PerplexityResult(Record):
    """Prefill-only negative log-likelihoods over fixed windows of one text.

    Attributes:
        name: What the report calls it.
        text_digest: SHA-256 of the text.
        tokens_digest: SHA-256 of the token ids of all windows (int64, little-endian).
        window: Tokens in a window; the first one is context only.
        window_nll: Sum over a window's scored tokens, in nats, one entry a window.
        scored: Scored tokens in each window.
    """

    name: str
    text_digest: str
    tokens_digest: str
    window: int
    window_nll: tuple[float, ...]
    scored: int

    @property
    def value(self) -> float:
        """exp(mean NLL)."""
        total = math.fsum(self.window_nll)
        mean = total / (self.scored * len(self.window_nll)) if self.window_nll else math.nan
        return math.exp(mean) if mean < 700 else math.inf if mean >= 700 else math.nan


class RoundingFloor(Record):
    """What a last-bit change in the rounding of activations alone does to the model.

    Attributes:
        kl: Mean KL divergence in nats between the two roundings.
        codes_changed: Share of activation codes that differ.
        tokens: How many it was measured on.
    """

    kl: float
    codes_changed: float
    tokens: int


class EvalResult(Record):
    """One evaluation of one checkpoint. A baseline is an EvalResult that was kept.

    Attributes:
        model: What the user named: a path or `org/name`.
        weights_digest: SHA-256 over the weight files, see `baseline.weights_digest`.
        config_digest: SHA-256 over config.json without its quantization.
        tokenizer_digest: SHA-256 over the tokenizer's files.
        chat_template_sha: SHA-256 of the template that was used.
        weight_bits: The lowest declared width of a weight; 16 for an unquantized checkpoint.
        kernel: How quantized layers were computed, in words.
        batch_size: Documents that were generated together.
        seed: Of the order of documents.
        duration_s: Wall-clock, model loading included.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    model: str
    revision: str | None
    weights_digest: str
    config_digest: str
    tokenizer_digest: str
    chat_template_sha: str | None
    format: str | None
    weight_bits: int | None = None
    backend: str
    device: str
    dtype: str
    kernel: str
    activations: Literal["emulate", "off"]
    setups: tuple[TaskSetup, ...]
    tasks: tuple[TaskResult, ...]
    answers: dict[str, tuple[Answer, ...]] = {}
    perplexities: tuple[PerplexityResult, ...] = ()
    rounding_floor: RoundingFloor | None = None
    size: Size
    seed: str
    batch_size: int
    versions: dict[str, str]
    date: str
    duration_s: float

    def task(self, task: str, metric: str, filter: str | None = None) -> TaskResult | None:
        """The stored result of one metric."""
        for result in self.tasks:
            if (result.task, result.metric) == (task, metric) and filter in {None, result.filter}:
                return result
        return None

    def setup(self, task: str) -> TaskSetup | None:
        """How one task was asked."""
        return next((setup for setup in self.setups if setup.task == task), None)

    def perplexity(self, name: str) -> PerplexityResult | None:
        """The stored perplexity of that name."""
        return next((found for found in self.perplexities if found.name == name), None)


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


def now() -> str:
    """The time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(path: Path, record: Record) -> None:
    """Write a record as JSON: all of it or nothing.

    Raises:
        GateError: The directory cannot be written.
    """
    write_text(path, record.model_dump_json(indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically.

    Raises:
        GateError: The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp gives 0600; a report is as readable as any file that the user makes.
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise GateError(
            f"{path} cannot be written: {error}",
            "Name a file in a directory that you may write to.",
        ) from error


def read(path: Path, kind: type[R]) -> R:
    """Read a stored record of this or an older schema version.

    Raises:
        GateError: Missing, unreadable, newer, or not a record of that kind.
    """
    what = kind.__name__
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise GateError(
            f"{path} cannot be read as {what}: {error}", "Make it again with gate eval."
        ) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int:
        raise GateError(
            f"{path} is not a stored {what}: it has no schema_version",
            "Make it again with gate eval.",
        )
    if version > SCHEMA_VERSION:
        raise GateError(
            f"{path} has schema version {version}; this quant-gate reads up to {SCHEMA_VERSION}",
            "Upgrade: pip install --upgrade quant-gate",
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        raise GateError(
            f"{path} is not a stored {what}: at /{where}: {first['msg']}",
            "Make it again with gate eval.",
        ) from error
