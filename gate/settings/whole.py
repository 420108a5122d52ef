"""The whole of quant-gate.yaml."""

import os
from functools import reduce
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from gate.errors import SettingsError
from gate.settings import sets
from gate.settings import suites as grouping
from gate.settings.choices import Age, BatchSize, Borderline, EarlyStopping, Memory, Replicas
from gate.settings.metrics import (
    DEFAULT_METRICS,
    Limit,
    Part,
    PerplexityMetric,
    TaggedMetric,
    TaskMetric,
    TaskOptions,
    TaskRun,
)
from gate.settings.rules import CheckpointRule, Reason, covers
from gate.settings.runtime import RuntimeQuantization
from gate.settings.server import Server
from gate.settings.speed import Speed
from gate.settings.suites import Combine, Suite
from gate.settings.target import Target
from gate.settings.vllm import Vllm

DEFAULT_FILE = "quant-gate.yaml"


BASELINES = "baselines"
"""Directory beside the settings where stored results are looked for."""


PULL_REQUEST_EVENTS = frozenset({"pull_request", "pull_request_target", "merge_group"})


def _or_sets(schema: dict[str, Any]) -> None:
    """In the file, a set's name may stand where a suite does."""
    schema["items"] = {"anyOf": [schema["items"], {"enum": list(sets.NAMES)}]}


class Settings(Part):
    """The whole file.

    Attributes:
        backend: Who runs the model; `auto` is vLLM where it can serve the checkpoint here, else hf.
        answers: For backend `replay`: the stored result whose answers are used.
        server: For backend `server`: whom it asks.
        vllm: For backend `vllm`: how it runs its engine.
        runtime_quantization: For `native` and `vllm`: how the runtime quantizes an unquantized
            checkpoint while it loads it, which is then what is judged; `gate eval` measures the
            checkpoint without, as the baseline.
        target: Where the checkpoint will be served.
        weights: `served` decodes them as the target's runtime computes with them, `stored` as the
            files have them; without a target that is the same.
        activations: `emulate` quantizes inputs as the runtime will; `off` leaves them.
        batch_size: Documents that are generated together; halved when memory runs out. `auto` takes
            what a GPU has room for, and 8 on a CPU.
        memory: `resident` loads the whole model, `stream` holds one decoder layer at a time, with
            which texts are read but no task is answered; `auto` streams where the whole model does
            not fit. `offload` lets the host's memory hold what the GPUs do not, which is slow.
        replicas: Processes that share the documents, each with the whole model on a GPU of its own,
            or with its part of a CPU's threads; `auto` takes every GPU that holds the model.
        canary_prompts: Answers that are looked at before the long run; 0 for none.
        early_stop: When a task may end before its last document: `guaranteed` when the verdict on
            all of them is settled with 99 %, `certain` when nothing can change it, `auto` as
            `guaranteed` for a FAIL, and for a PASS of more than 1,000 documents.
        borderline: What a metric gets whose 95 % interval holds the limit: what the figure says
            (`point`), FAIL (`block`), INCONCLUSIVE, or what it says together with the suite that
            its own escalates to (`escalate`, the default where a suite does; `point` elsewhere).
        attest: Whether `gate attest` asks for tasks that were measured to their end (`full`), or
            takes a settled verdict, too (`early`).
        top_tokens: Most likely tokens that `gate eval` keeps of each distribution, so that those of
            candidates can be compared; 0 for none.
        allow_unsafe_tasks: Tasks, by name, that may run code of their own.
        include_path: Directory with further lm-eval task files.
        store: Directory or address (s3://, gs://, hf://) where baselines are looked for, too, where
            the history lies, and where verdicts are shared.
        max_age: Age from which a baseline is not compared with any more, such as `90d`; left out,
            there is none.
        max_drop_vs_released: Share of what last passed that each task with a limit may lose on the
            same documents, whatever the baseline has; left out, that change is only shown.
        on_fail: `diagnose` looks for the modules that hurt where a measured candidate fails and its
            reference is at hand; the verdict stays.
        publish_text: Whether reports hold prompts and answers of the user's own tasks, too.
        metrics: What is measured; those of `suites` where these are given instead.
        suites: The same in groups, in the order in which they are run; the name of a set stands for
            its suites (`gate list suites`).
        combine: Every suite must pass (`each`), or none may fall below its floor and their mean
            retention must reach `min_mean_retention` (`mean`).
        speed: How speed and memory are measured; left out, they are not.
        ignore: Rule or `rule:tensor-glob` to the reason why its findings do not decide.
    """

    version: Literal[1] = 1
    backend: Literal["auto", "hf", "native", "replay", "server", "vllm"] = "hf"
    answers: str | None = None
    server: Server | None = None
    vllm: Vllm = Vllm()
    runtime_quantization: RuntimeQuantization | None = None
    target: Target | None = None
    weights: Literal["served", "stored"] = "served"
    activations: Literal["emulate", "off"] = "emulate"
    batch_size: BatchSize = "auto"
    memory: Memory = "auto"
    replicas: Replicas = 1
    canary_prompts: int = Field(default=16, ge=0, le=1024)
    early_stop: EarlyStopping = "auto"
    borderline: Borderline = "point"
    attest: Literal["full", "early"] = "full"
    top_tokens: int = Field(default=64, ge=0, le=1024)
    trust_remote_code: bool = False
    allow_unsafe_tasks: tuple[str, ...] = ()
    include_path: str | None = None
    store: str | None = None
    max_age: Age | None = None
    max_drop_vs_released: Annotated[Limit, Field(lt=1)] | None = None
    on_fail: Literal["off", "diagnose"] = "off"
    publish_text: bool = False
    checkpoints: tuple[CheckpointRule, ...] = ()
    metrics: tuple[TaggedMetric, ...] = Field(default=DEFAULT_METRICS, min_length=1)
    suites: tuple[Suite, ...] = Field(default=(), json_schema_extra=_or_sets)
    combine: Combine = "each"
    min_mean_retention: Limit | None = None
    speed: Speed | None = None
    ignore: dict[str, Reason] = Field(default={})

    @model_validator(mode="after")
    def _with_suites(self) -> Self:
        """Their metrics stand in `metrics`, where everybody looks."""
        stated = self.model_fields_set
        if self.backend == "server" and self.server is None:
            raise ValueError("backend: server needs server, such as {url: http://localhost:8000}")
        runtime = self.runtime_quantization
        if runtime is not None and self.backend != runtime.backend:
            raise ValueError(f"this runtime_quantization needs backend: {runtime.backend}")
        escalating = any(suite.escalate_to is not None for suite in self.suites)
        if (self.min_mean_retention is None) == (self.combine == "mean"):
            raise ValueError("combine: mean and min_mean_retention belong together")
        if self.borderline == "escalate" and not escalating:
            raise ValueError("borderline: escalate needs a suite with escalate_to")
        if not self.suites:
            if self.combine == "mean":
                raise ValueError("combine: mean needs suites")
            return self
        if "metrics" in stated:
            raise ValueError("metrics and suites are both given; put every metric into a suite")
        grouping.require_consistent(self.suites, self.combine)
        # The model is frozen for its readers; until here it has none.
        object.__setattr__(self, "metrics", grouping.flattened(self.suites, self.combine))
        if escalating and "borderline" not in stated:
            object.__setattr__(self, "borderline", "escalate")
        return self

    @model_validator(mode="after")
    def _measured_against_released(self) -> Self:
        """A limit that nothing could ever reach is a mistake, not a gate."""
        if self.max_drop_vs_released is None:
            return self
        if self.store is None:
            raise ValueError("max_drop_vs_released needs a store, which holds the history")
        if not any(metric.gates for metric in self.task_metrics):
            raise ValueError("max_drop_vs_released needs a task with a limit")
        return self

    def suite_of(self, task: str) -> Suite | None:
        """The suite that a task belongs to."""
        return next((suite for suite in self.suites if task in suite.tasks), None)

    @property
    def escalations(self) -> tuple[tuple[Suite, Suite], ...]:
        """Each suite that escalates, and the one that it escalates to."""
        if self.borderline != "escalate":
            return ()
        known = {suite.name: suite for suite in self.suites}
        return tuple(
            (suite, known[suite.escalate_to])
            for suite in self.suites
            if suite.escalate_to is not None
        )

    @property
    def reserve(self) -> frozenset[str]:
        """Tasks that are run only where another suite cannot tell."""
        named = {suite.escalate_to for suite in self.suites}
        return frozenset(
            task for suite in self.suites if suite.name in named for task in suite.tasks
        )

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
