"""The whole of quant-gate.yaml."""

import os
from functools import reduce
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import (
    Field,
)

from gate.errors import SettingsError
from gate.settings.metrics import (
    DEFAULT_METRICS,
    Part,
    PerplexityMetric,
    TaggedMetric,
    TaskMetric,
    TaskOptions,
    TaskRun,
)
from gate.settings.rules import CheckpointRule, Reason, covers

DEFAULT_FILE = "quant-gate.yaml"


BASELINES = "baselines"
"""Directory beside the settings where stored results are looked for."""


PULL_REQUEST_EVENTS = frozenset({"pull_request", "pull_request_target", "merge_group"})


EarlyStopping = Literal["auto", "guaranteed", "certain", "off"]


Borderline = Literal["point", "block", "inconclusive"]


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
    metrics: tuple[TaggedMetric, ...] = Field(default=DEFAULT_METRICS, min_length=1)
    ignore: dict[str, Reason] = Field(default={})

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
