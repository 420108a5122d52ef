"""quant-gate.yaml: what is measured, on what, and what it may lose."""

import fnmatch
import os
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import reduce
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from gate.errors import SettingsError

DEFAULT_FILE = "quant-gate.yaml"
BASELINES = "baselines"
"""Directory beside the settings where stored results are looked for."""


class _WrittenFloat(float):
    """A number of the settings file that remembers how it was written."""

    text: str


def _as_written(value: Any) -> Any:
    return getattr(value, "text", value)


Limit = Annotated[Decimal, Field(gt=0, le=10, allow_inf_nan=False), BeforeValidator(_as_written)]
BY_WEIGHT_BITS: Literal["by-weight-bits"] = "by-weight-bits"
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
PIN = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[\w./-]+)")
"""A checkpoint on the hub, always with a revision: a verdict is about bytes."""

PULL_REQUEST_EVENTS = frozenset({"pull_request", "pull_request_target", "merge_group"})


class Part(BaseModel):
    """Part of the settings: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointRule(Part):
    """Which baseline belongs to which checkpoints.

    Attributes:
        path: Glob over checkpoint directories, relative to the settings file; or a checkpoint on
            the hub, pinned as org/name@revision.
        reference: The unquantized checkpoint: a directory or org/name@revision.
        baseline: Its stored result; left out, it is found by the reference's digest in baselines/.
    """

    path: str = "**"
    reference: str | None = None
    baseline: str | None = None

    @property
    def pinned(self) -> tuple[str, str] | None:
        """Repository and revision of a checkpoint on the hub; None for a glob."""
        found = PIN.fullmatch(self.path)
        return (found["repository"], found["revision"]) if found else None


class TaskOptions(Part):
    """How a task is asked; every metric of one task shares them.

    Attributes:
        documents: JSON Lines file with the task's documents; left out, the task's own data set.
        apply_chat_template: `auto` applies it to generation tasks of a model that has one.
        max_gen_toks: Most new tokens per answer; left out, the task's own.
    """

    documents: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0, le=64)
    apply_chat_template: bool | Literal["auto"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    system_instruction: str | None = None
    max_gen_toks: int | None = Field(default=None, ge=1)


class TaskMetric(TaskOptions):
    """One metric of one lm-eval task.

    Attributes:
        task: Name, or path of a local task file.
        metric: Left out: every metric of the task, advisory.
        filter: lm-eval's answer filter; left out, the first that has the metric.
        min_retention: Share of the baseline's score that must be kept; without it, advisory.
    """

    task: str
    metric: str | None = None
    filter: str | None = None
    min_retention: Limit | None = None

    @model_validator(mode="after")
    def _gating_needs_metric(self) -> "TaskMetric":
        if self.min_retention is not None and self.metric is None:
            raise ValueError("min_retention needs a metric")
        return self


class PerplexityText(Part):
    """The text and how much of it: a file, or a column of a data set.

    Attributes:
        window: Tokens in a window.
        windows: Most windows that are used; the text may hold fewer.
    """

    file: str | None = None
    dataset: str | None = None
    name: str | None = None
    split: str = "test"
    column: str = "text"
    window: int = Field(default=512, ge=2, le=1 << 20)
    windows: int = Field(default=56, ge=2, le=1 << 20)

    @model_validator(mode="after")
    def _one_source(self) -> "PerplexityText":
        if (self.file is None) == (self.dataset is None):
            raise ValueError("perplexity needs either file or dataset")
        return self

    @property
    def label(self) -> str:
        """What reports call it."""
        return (
            PurePath(self.file).name if self.file else f"{self.name or self.dataset}/{self.split}"
        )


class PerplexityMetric(Part):
    """Perplexity on one text.

    Attributes:
        max_ratio: Most that candidate over baseline may be; `by-weight-bits` is 1.02 from 8 bits
            up and 1.15 for 4 to 7; without it, advisory.
    """

    perplexity: PerplexityText
    max_ratio: Limit | Literal["by-weight-bits"] | None = None


Metric = TaskMetric | PerplexityMetric
EarlyStopping = Literal["auto", "guaranteed", "certain", "off"]
Borderline = Literal["point", "block", "inconclusive"]


class TaskRun(Part):
    """One task as it is run once, for all of its metrics."""

    task: str
    options: TaskOptions
    metrics: tuple[TaskMetric, ...]


def _metric_kind(value: Any) -> str:
    """Which metric an entry means, so that only what is wrong with that one is said."""
    is_text = "perplexity" in value if isinstance(value, Mapping) else hasattr(value, "perplexity")
    return "perplexity metric" if is_text else "task metric"


_Tagged = Annotated[
    Annotated[TaskMetric, Tag("task metric")]
    | Annotated[PerplexityMetric, Tag("perplexity metric")],
    Discriminator(_metric_kind),
]


IFEVAL_METRICS = (
    "inst_level_strict_acc",
    "prompt_level_strict_acc",
    "inst_level_loose_acc",
    "prompt_level_loose_acc",
)

DEFAULT_METRICS: tuple[Metric, ...] = (
    TaskMetric(task="ifeval", metric=IFEVAL_METRICS[0], min_retention=Decimal("0.95")),
    *(TaskMetric(task="ifeval", metric=metric) for metric in IFEVAL_METRICS[1:]),
    PerplexityMetric(
        perplexity=PerplexityText(dataset="Salesforce/wikitext", name="wikitext-2-raw-v1"),
        max_ratio=BY_WEIGHT_BITS,
    ),
)
"""What is measured where the settings do not say it."""


class Settings(Part):
    """The whole file.

    Attributes:
        backend: Who runs the model.
        answers: For backend `replay`: the stored result whose answers are used.
        activations: `emulate` quantizes inputs as the runtime will; `off` leaves them.
        batch_size: Documents that are generated together; halved when memory runs out.
        canary_prompts: Answers that are looked at before the long run; 0 for none.
        early_stop: When a task may end before its last document: `guaranteed` when the verdict on
            all of them is settled with 99 %, `certain` when nothing can change it, `auto` as
            `guaranteed` for a FAIL, and for a PASS of more than 1,000 documents.
        borderline: What a metric gets whose 95 % interval holds the limit: what the figure says
            (`point`), FAIL (`block`) or INCONCLUSIVE.
        allow_unsafe_tasks: Tasks, by name, that may run code of their own.
        include_path: Directory with further lm-eval task files.
        publish_text: Whether reports hold prompts and answers of the user's own tasks, too.
        ignore: Rule or `rule:tensor-glob` to the reason why its findings do not decide.
    """

    version: Literal[1] = 1
    backend: Literal["hf", "replay"] = "hf"
    answers: str | None = None
    activations: Literal["emulate", "off"] = "emulate"
    batch_size: int = Field(default=8, ge=1, le=4096)
    canary_prompts: int = Field(default=16, ge=0, le=1024)
    early_stop: EarlyStopping = "auto"
    borderline: Borderline = "point"
    trust_remote_code: bool = False
    allow_unsafe_tasks: tuple[str, ...] = ()
    include_path: str | None = None
    publish_text: bool = False
    checkpoints: tuple[CheckpointRule, ...] = ()
    metrics: tuple[_Tagged, ...] = Field(default=DEFAULT_METRICS, min_length=1)
    ignore: dict[str, Reason] = {}

    @property
    def task_metrics(self) -> tuple[TaskMetric, ...]:
        """The metrics of lm-eval tasks."""
        return tuple(metric for metric in self.metrics if isinstance(metric, TaskMetric))

    @property
    def perplexity_metrics(self) -> tuple[PerplexityMetric, ...]:
        """The perplexities."""
        return tuple(metric for metric in self.metrics if isinstance(metric, PerplexityMetric))

    @property
    def task_runs(self) -> tuple[TaskRun, ...]:
        """Each task once, with the options that its metrics state together.

        Raises:
            SettingsError: Two metrics of one task state different options.
        """
        grouped: dict[str, list[TaskMetric]] = {}
        for metric in self.task_metrics:
            grouped.setdefault(metric.task, []).append(metric)
        return tuple(
            TaskRun(task=task, options=_shared(task, metrics), metrics=tuple(metrics))
            for task, metrics in grouped.items()
        )

    def rule_for(
        self, checkpoint: Path, root: Path, pin: tuple[str, str] | None = None
    ) -> CheckpointRule:
        """The first entry of `checkpoints` whose glob covers the directory; else an empty one.

        Args:
            checkpoint: The checkpoint's directory.
            root: The settings file's directory, to which globs are relative.
            pin: Repository and revision of a checkpoint on the hub: an entry that pins it comes
                before any glob.
        """
        if pin is not None and (pinned := self.rule_for_pin(*pin)):
            return pinned
        for rule in self.checkpoints:
            absolute = PurePath(rule.path).is_absolute()
            path = str(checkpoint.absolute()) if absolute else os.path.relpath(checkpoint, root)
            if covers(rule.path, path):
                return rule
        return CheckpointRule(path=str(checkpoint))

    def rule_for_pin(self, repository: str, revision: str) -> CheckpointRule | None:
        """The entry that pins a checkpoint of the hub; None where none does.

        One that pins another revision stands for it too: a change that pins a new revision is
        judged by the limits of the old one.
        """
        pins = [rule for rule in self.checkpoints if rule.pinned]
        exact = (rule for rule in pins if rule.pinned == (repository, revision))
        same = (rule for rule in pins if rule.pinned and rule.pinned[0] == repository)
        return next(exact, None) or next(same, None)


def covers(glob: str, path: str) -> bool:
    """Whether a glob over path components covers a path; `**` is any number of components."""
    return _match(PurePath(os.path.normpath(glob)).parts, PurePath(path).parts)


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Glob over path components; `**` stands for any number of them, none included.

    The settings may come from anyone: what is reached after each component is kept, so that no
    pattern takes exponential time.
    """

    def skipping(positions: set[int]) -> set[int]:
        """With the positions behind any `**`, which may stand for nothing."""
        for position in range(len(pattern)):
            if position in positions and pattern[position] == "**":
                positions.add(position + 1)
        return positions

    reached = skipping({0})
    for part in parts:
        after = set()
        for position in reached - {len(pattern)}:
            if pattern[position] == "**":
                after.add(position)
            elif fnmatch.fnmatchcase(part, pattern[position]):
                after.add(position + 1)
        reached = skipping(after)
    return len(pattern) in reached


def _shared(task: str, metrics: list[TaskMetric]) -> TaskOptions:
    """The union of what the metrics of one task state."""

    def merge(known: dict[str, Any], metric: TaskMetric) -> dict[str, Any]:
        stated = {
            name: getattr(metric, name)
            for name in TaskOptions.model_fields
            if getattr(metric, name) is not None
        }
        for name in known.keys() & stated.keys():
            if known[name] != stated[name]:
                raise SettingsError(
                    f"task {task} is given two values of {name}: "
                    f"{known[name]!r} and {stated[name]!r}",
                    "State it once: the metrics of one task share one run.",
                )
        return known | stated

    none: dict[str, Any] = {}
    return TaskOptions(**reduce(merge, metrics, none))


DEFAULT = Settings()
"""What is measured without a settings file."""


def load(path: Path | None, threshold: Decimal | None = None) -> tuple[Settings, Path]:
    """The settings and the directory to which their paths are relative.

    Args:
        path: The file; None for quant-gate.yaml here, or the embedded default without one.
        threshold: Replaces `min_retention` of every gating metric.

    Raises:
        SettingsError: The file is missing, no YAML, or says something wrong.
    """
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    settings = DEFAULT if path is None else read(path)
    if threshold is not None:
        settings = _with_threshold(settings, threshold)
    if settings.trust_remote_code and os.environ.get("GITHUB_EVENT_NAME") in PULL_REQUEST_EVENTS:
        raise SettingsError(
            "trust_remote_code is not taken from the settings of a pull request",
            "Pass --trust-remote-code in the workflow if the base branch wants it.",
        )
    return settings, path.absolute().parent if path else Path.cwd()


class _Loader(yaml.SafeLoader):
    """Plain YAML whose numbers remember their text: a limit is a decimal as written."""


def _written_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = loader.construct_yaml_float(node)
    try:
        Decimal(node.value)
    except InvalidOperation:  # YAML's own spellings, such as .inf
        return number
    written = _WrittenFloat(number)
    written.text = node.value
    return written


_Loader.add_constructor("tag:yaml.org,2002:float", _written_float)


def read(path: Path) -> Settings:
    """A settings file as it is written.

    Raises:
        SettingsError: It is missing, no YAML, or says something wrong.
    """
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", "Name a readable file with --settings."
        ) from error


def parse(content: bytes, path: PurePath) -> Settings:
    """The settings in a file's content.

    Args:
        content: UTF-8.
        path: What messages call it.

    Raises:
        SettingsError: It is no YAML, or says something wrong.
    """
    try:
        value = yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", "Write the file in UTF-8."
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path} is not YAML: {error}", "Mend the file.") from error
    if not isinstance(value, Mapping):
        raise SettingsError(f"{path} holds no mapping", "Begin it with `version: 1`.")
    try:
        return Settings.model_validate(value)
    except ValidationError as error:
        raise SettingsError(
            f"{path} {_first(error, value)}",
            "Mend the file; schemas/settings.schema.json describes it.",
        ) from error


def _first(error: ValidationError, value: Mapping[str, Any]) -> str:
    """The most telling violation, with its JSON pointer into `value`."""
    worst = max(error.errors(), key=lambda item: (item["type"] != "missing", len(item["loc"])))
    where: list[str] = []
    node: Any = value
    for part in worst["loc"]:
        inside = isinstance(node, list) or (isinstance(node, Mapping) and part in node)
        # What is neither a key nor absent is pydantic's name for a member of a union.
        if inside or (worst["type"] == "missing" and part == worst["loc"][-1]):
            where.append(str(part))
            node = node[part] if inside else None
    return f"at /{'/'.join(where)}: {worst['msg']}"


def _with_threshold(settings: Settings, threshold: Decimal) -> Settings:
    if not (threshold.is_finite() and 0 < threshold <= 10):
        raise SettingsError(
            f"--threshold {threshold} is not a share", "Give a number such as 0.95."
        )
    if not any(metric.min_retention is not None for metric in settings.task_metrics):
        raise SettingsError(
            "--threshold has no effect: no metric in the settings has min_retention",
            "Add min_retention to the metric that should gate.",
        )
    metrics = tuple(
        metric.model_copy(update={"min_retention": threshold})
        if isinstance(metric, TaskMetric) and metric.min_retention is not None
        else metric
        for metric in settings.metrics
    )
    return settings.model_copy(update={"metrics": metrics})
