"""What is measured, and what it may lose."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)


class WrittenFloat(float):
    """A number of the settings file that remembers how it was written."""

    text: str


def as_written(value: Any) -> Any:
    """A number of the settings file as its text, so that a decimal is exact."""
    return getattr(value, "text", value)


Limit = Annotated[Decimal, Field(gt=0, le=10, allow_inf_nan=False), BeforeValidator(as_written)]


BY_WEIGHT_BITS: Literal["by-weight-bits"] = "by-weight-bits"


class Part(BaseModel):
    """Part of the settings: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Asking(Part):
    """How any question is put to the model, and what is taken of its answer.

    Attributes:
        apply_chat_template: `auto` applies it to generation tasks of a model that has one.
        max_gen_toks: Most new tokens per answer; left out, the task's own.
        think: What is done with a think block before an answer is scored: `strip`, the default,
            takes it out, `keep` scores it too, `refuse` ends the run.
    """

    apply_chat_template: bool | Literal["auto"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    system_instruction: str | None = None
    max_gen_toks: int | None = Field(default=None, ge=1)
    think: Literal["strip", "refuse", "keep"] | None = None


Scorer = Literal["exact", "contains", "regex", "choice", "json-schema"]


class TaskOptions(Asking):
    """How a task is asked; every metric of one task shares them.

    Attributes:
        documents: JSON Lines file with the task's documents; left out, the task's own data set.
        scorer: Of questions of the user's own, which `jsonl` names; none of an lm-eval task.
    """

    documents: str | None = None
    scorer: Scorer | None = None
    num_fewshot: int | None = Field(default=None, ge=0, le=64)


class TaskMetric(TaskOptions):
    """One metric of one lm-eval task.

    Attributes:
        task: Name, or path of a local task file.
        metric: Left out: every metric of the task, advisory.
        filter: lm-eval's answer filter; left out, the first that has the metric.
        min_retention: Share of the baseline's score that must be kept.
        min_score: Score that must be reached whatever the baseline has, 0..1; without either limit
            the metric is advisory.
    """

    task: str
    metric: str | None = None
    filter: str | None = None
    min_retention: Limit | None = None
    min_score: Annotated[Limit, Field(le=1)] | None = None

    @model_validator(mode="after")
    def _gating_needs_metric(self) -> "TaskMetric":
        if self.gates and self.metric is None:
            limit = "min_score" if self.min_retention is None else "min_retention"
            raise ValueError(f"{limit} needs a metric")
        if self.scorer is not None and self.task != PurePath(self.documents or "").name:
            raise ValueError("scorer belongs to jsonl: FILE")
        return self

    @property
    def gates(self) -> bool:
        """Whether it has a limit."""
        return self.min_retention is not None or self.min_score is not None


class JsonlMetric(Asking):
    """Questions of the user's own, one JSON object a line, and how their answers are scored.

    Attributes:
        jsonl: File of lines with `prompt`, and `answer` or `choices`, relative to the settings.
        scorer: `exact` wants one of the answers and nothing else, `contains` looks for one whatever
            its case, `regex` for a pattern of RE2, `choice` asks which of the line's `choices` the
            model finds likeliest, `json-schema` wants JSON that the schema in `answer` allows.
        min_retention: Share of the baseline's score that must be kept.
        min_score: Score that must be reached whatever the baseline has, 0..1; without either limit
            the metric is advisory.
    """

    jsonl: Annotated[str, Field(pattern=r"[^/\\]\.jsonl$")]
    scorer: Scorer
    min_retention: Limit | None = None
    min_score: Annotated[Limit, Field(le=1)] | None = None

    @classmethod
    def as_task(cls, value: Any) -> "TaskMetric":
        """The task that lm-eval is given: its name is the file's, its metric the scorer's."""
        found = cls.model_validate(value)
        return TaskMetric(
            task=PurePath(found.jsonl).name,
            documents=found.jsonl,
            metric="acc" if found.scorer == "choice" else found.scorer,
            **found.model_dump(exclude={"jsonl"}, exclude_unset=True),
        )


LONG_WINDOW = 8192
"""Tokens from which a window sees damage to the KV cache that short ones cannot."""


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
        """What reports call it; long windows of a text are another measure than short ones."""
        source = self.name or self.dataset
        name = PurePath(self.file).name if self.file else f"{source}/{self.split}"
        return f"{name} {self.window >> 10}k" if self.window >= LONG_WINDOW else name


class PerplexityMetric(Part):
    """Perplexity on one text.

    Attributes:
        max_ratio: Most that candidate over baseline may be; `by-weight-bits` is 1.02 from 8 bits
            up and 1.15 for 4 to 7; without it, advisory.
        max_kl: Most nats that the distributions may lie from the baseline's on average, as far as
            its most likely tokens show it; without it, advisory.
        min_same_top: Share of tokens whose most likely token must be the baseline's.
    """

    perplexity: PerplexityText
    max_ratio: Limit | Literal["by-weight-bits"] | None = None
    max_kl: Limit | None = None
    min_same_top: Limit | None = Field(default=None, le=1)

    @property
    def advisory(self) -> bool:
        """Whether it has no limit at all."""
        return self.max_ratio is None and not self.limits_drift

    @property
    def limits_drift(self) -> bool:
        """Whether the distributions have a limit of their own."""
        return self.max_kl is not None or self.min_same_top is not None


Metric = TaskMetric | PerplexityMetric


class TaskRun(Part):
    """One task as it is run once, for all of its metrics."""

    task: str
    options: TaskOptions
    metrics: tuple[TaskMetric, ...]


def _metric_kind(value: Any) -> str:
    """Which metric an entry means, so that only what is wrong with that one is said."""
    if isinstance(value, Mapping) and "jsonl" in value:
        return "jsonl metric"
    is_text = "perplexity" in value if isinstance(value, Mapping) else hasattr(value, "perplexity")
    return "perplexity metric" if is_text else "task metric"


TaggedMetric = Annotated[
    Annotated[TaskMetric, Tag("task metric")]
    | Annotated[
        TaskMetric,
        BeforeValidator(JsonlMetric.as_task, json_schema_input_type=JsonlMetric),
        Tag("jsonl metric"),
    ]
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
    PerplexityMetric(
        perplexity=PerplexityText(
            dataset="Salesforce/wikitext",
            name="wikitext-2-raw-v1",
            window=LONG_WINDOW,
            windows=2,
        )
    ),
)
"""What is measured where the settings do not say it."""
