"""All tasks of an evaluation: requests first, then batches through a model, scored."""

import copy
import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from gate.checkpoint import Checkpoint
from gate.errors import BackendError, SettingsError
from gate.harness import documents, loading, prompting, scoring, task_files, thinking
from gate.harness.generation import LanguageModel, answer, recording, within_memory
from gate.harness.points import by_instruction, raw
from gate.harness.remote import Remote, remote_model
from gate.harness.task import Task, build
from gate.offline import cached_files
from gate.records import Prompting, ScoredDocument, TaskSetup
from gate.settings import PACKAGED, Settings, TaskRun, located


class Harness:
    """Every task's requests, built once, and their scoring; no model is needed for the former.

    Requests are built for all documents at once because a few-shot subset would draw other
    prompts than the full run does.

    Args:
        runs: The tasks.
        tokenizer: Renders the chat template.
        root: The settings' directory, to which paths are relative.
        include_path: Directory with further task files.
        allow_unsafe_tasks: Tasks that may run code of their own.

    Raises:
        SettingsError: An unknown, unsafe or malformed task, or a metric that it does not have.
        BackendUnavailableError: A data set or what a scorer needs is not on this machine.
    """

    def __init__(
        self,
        runs: Sequence[TaskRun],
        tokenizer: Any,
        root: Path,
        include_path: str | None = None,
        allow_unsafe_tasks: Sequence[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        # Kept as long as the tasks: their documents are mapped from files in it.
        self._directory = tempfile.TemporaryDirectory(prefix="quant-gate-")
        # All are found and found safe before the first one's data is loaded.
        files = [_task_file(run, root, include_path, allow_unsafe_tasks) for run in runs]
        self._tasks = {
            run.task: self._build(run, file, root) for run, file in zip(runs, files, strict=True)
        }

    @classmethod
    def of(cls, settings: Settings, checkpoint: Checkpoint, root: Path) -> Self | None:
        """The settings' tasks, by the checkpoint's own tokenizer; None where they have none."""
        if not settings.task_runs:
            return None
        own = checkpoint.path, settings.trust_remote_code, checkpoint.whole_file
        tokenizer = loading.load_tokenizer(*own)
        further = settings.include_path, settings.allow_unsafe_tasks
        return cls(settings.task_runs, tokenizer, root, *further)

    def setups(self) -> tuple[TaskSetup, ...]:
        """How each task is asked."""
        return tuple(task.setup for task in self._tasks.values())

    def doc_ids(self, task: str) -> Sequence[int]:
        """Every document of a task, in lm-eval's order."""
        return tuple(self._tasks[task].instances)

    def prompt(self, task: str, doc_id: int) -> str:
        """The text that the model is given."""
        return str(self._tasks[task].instances[doc_id][0].args[0])

    def metrics(self, task: str) -> tuple[tuple[str, str], ...]:
        """Every metric that is a mean over documents or their parts, with each answer filter."""
        found = self._tasks[task]
        return tuple((metric, name) for metric in found.aggregations for name in found.filters)

    def higher_is_better(self, task: str, metric: str) -> bool:
        """Whether more of a metric is better."""
        return bool(self._tasks[task].task.higher_is_better().get(metric, True))

    def prompting(self, checkpoint: Checkpoint) -> Prompting:
        """How the prompts begin, and whether generation ends where the chat template does."""
        asked = {
            name: [str(instances[0].args[0]) for instances in task.instances.values()]
            for name, task in self._tasks.items()
        }
        firsts = [prompts[0] for prompts in asked.values()]
        digests = {name: prompting.tokens_digest(self.tokenizer, p) for name, p in asked.items()}
        facts = prompting.facts(self.tokenizer, checkpoint, firsts)
        return facts.model_copy(update={"tokens_digests": digests})

    def language_model(self, model: Any, batch_size: int = 1) -> LanguageModel:
        """lm-eval's wrapper around a loaded model; each call of `score` is one batch.

        Raises:
            SettingsError: A task generates more tokens than the model has positions.
        """
        from lm_eval.models.huggingface import HFLM

        return self._with_room(recording(HFLM)(model, self.tokenizer, batch_size))

    def remote_model(self, remote: Remote, context: int) -> LanguageModel:
        """The same for a model behind a server.

        Args:
            remote: Asks it.
            context: Tokens of prompt and answer that the model was made for.

        Raises:
            SettingsError: As `language_model`.
        """
        conversations = {
            prompt: found
            for task in self._tasks.values()
            for prompt, found in task.conversations.items()
        }
        return self._with_room(remote_model(remote, self.tokenizer, context, conversations))

    def _with_room(self, lm: LanguageModel) -> LanguageModel:
        for setup in self.setups():
            limit = setup.generation_kwargs.get("max_gen_toks", 0)
            if not limit < lm.max_length:
                raise SettingsError(
                    f"task {setup.task} generates up to {limit} tokens; the model has "
                    f"{lm.max_length} positions for prompt and answer",
                    "Set a smaller max_gen_toks for this task.",
                )
        return lm

    def score(self, lm: LanguageModel, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """Run these documents as one batch and score them.

        Raises:
            OutOfMemoryError: They do not fit together.
            NonFiniteLogitsError: The model computed NaN or infinity.
        """
        found = self._tasks[task]
        # Results are written into requests, so each run has its own.
        instances = {
            doc_id: [
                dataclasses.replace(
                    instance,
                    arguments=copy.deepcopy(instance.arguments),
                    resps=[],
                    filtered_resps={},
                )
                for instance in found.instances[doc_id]
            ]
            for doc_id in doc_ids
        }
        flat = [instance for group in instances.values() for instance in group]
        lm.batch_size_per_gpu = len(doc_ids)
        lm.generations.clear()
        loading.seed()
        within_memory(lambda: answer(lm, flat), len(doc_ids))
        thought = scoring.take_out_thinking(found, flat, thinking.markers(self.tokenizer))
        for ensemble in found.task._filters:
            ensemble.apply(flat)
        scored = [
            scoring.scored(found, doc_id, group, lm, thought) for doc_id, group in instances.items()
        ]
        self.check_aggregation(task, scored)
        return scored

    def check_aggregation(self, task: str, scored: Sequence[ScoredDocument]) -> None:
        """Make sure that points over reachable points is what lm-eval's aggregation gives.

        Raises:
            BackendError: It is not.
        """
        found = self._tasks[task]
        for metric, answer_filter in self.metrics(task):
            points = [
                p
                for document in scored
                for p in document.points
                if (p.metric, p.filter) == (metric, answer_filter)
            ]
            reachable = math.fsum(p.weight for p in points)
            if not reachable:
                continue
            ours = math.fsum(p.score for p in points) / reachable
            values = [raw(p, by_instruction(found.aggregations[metric])) for p in points]
            theirs = float(found.aggregations[metric](values))
            if not math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12):
                raise BackendError(
                    f"{metric} of task {task} is {theirs} to lm-eval and {ours} as a mean",
                    "Leave this metric out: it cannot be compared document by document.",
                )

    def _build(self, run: TaskRun, file: task_files.TaskFile, root: Path) -> Task:
        path, digest = file.path, None
        if run.options.documents is not None:
            path, digest = documents.with_documents(
                file,
                located(root, run.options.documents),
                Path(self._directory.name),
                run.options.scorer,
            )
        return build(run, file, path, self.tokenizer, digest)


def probe(
    run: TaskRun, root: Path, include_path: str | None, allow_unsafe_tasks: Sequence[str]
) -> str:
    """Make sure that a task's file, scorer and data are here; says where its documents are.

    Raises:
        SettingsError, BackendUnavailableError: As `Harness`.
    """
    file = _task_file(run, root, include_path, allow_unsafe_tasks)
    if run.options.documents is None:
        dataset = file.config.get("dataset_path")
        loading.load_task(run.task, file.path, dataset, model_path="")
        return f"data set {dataset}"
    with tempfile.TemporaryDirectory(prefix="quant-gate-") as directory:
        place = located(root, run.options.documents)
        documents.with_documents(file, place, Path(directory), run.options.scorer)
    return run.options.documents


class Sources(NamedTuple):
    """What a task is made of, beside lm-eval's own package.

    Attributes:
        files: Task files, Python beside them, local documents.
        data: The data set's files in the cache; empty where local documents are named.
        sentences: NLTK's sentence data, where the task is scored with it.
    """

    files: tuple[Path, ...]
    data: tuple[Path, ...]
    sentences: Path | None


def sources(
    run: TaskRun, root: Path, include_path: str | None, allow_unsafe_tasks: Sequence[str]
) -> Sources:
    """Every file that a task reads; its data set is fetched where it is not cached.

    Raises:
        SettingsError, BackendUnavailableError: As `Harness`.
    """
    file = _task_file(run, root, include_path, allow_unsafe_tasks)
    beside = (function.file for function in file.functions if function.file.is_file())
    packages = (task_files.package(), Path(__file__).parent)
    own = [p for p in (*file.files, *beside) if not any(map(p.is_relative_to, packages))]
    sentences = loading.sentence_data() if loading.needs_sentence_data(file) else None
    if run.options.documents is not None:
        packaged = run.options.documents.startswith(PACKAGED)
        local = () if packaged else (root / run.options.documents,)
        return Sources((*own, *local), (), sentences)
    dataset = file.config.get("dataset_path")
    task = loading.load_task(run.task, file.path, dataset, model_path="")
    return Sources(tuple(own), cached_files(task.dataset, f"task {run.task}"), sentences)


def _task_file(
    run: TaskRun, root: Path, include_path: str | None, allow_unsafe_tasks: Sequence[str]
) -> task_files.TaskFile:
    file = loading.task_file(run, root, include_path)
    loading.prepare()
    trusted = {run.task, file.config.get("task")} & set(allow_unsafe_tasks)
    if run.options.scorer is None and not trusted:
        loading.refuse_unsafe(run.task, file)
    loading.require_scorer(file)
    return file
