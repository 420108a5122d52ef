"""What static validation found."""

from typing import Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from gate.records.storing import Record

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
        gain: By what factor the reference's comes closest to these: 4 where a scale is four times
            too large; None in results of versions that did not tell.
    """

    layer: str
    algo: str
    relative_rms: float
    cosine: float
    gain: float | None = None


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
