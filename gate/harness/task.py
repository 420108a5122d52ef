"""One task with every request that it makes of a model."""

import copy
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gate.errors import SettingsError
from gate.harness import loading, points, tokens
from gate.harness.points import Aggregation
from gate.harness.remote import Conversation
from gate.harness.task_files import TaskFile
from gate.records import TaskSetup
from gate.settings import TaskOptions, TaskRun


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with all of its requests built.

    Attributes:
        instances: Document id to its requests, in lm-eval's order.
        hashes: Document id to doc_hash and prompt_hash.
        aggregations: Usable metric to lm-eval's aggregation of it.
        lots: Document id to the state of Python's random numbers that scoring it begins with.
        conversations: Prompt to what it was made of, where the chat template was applied.
    """

    task: Any
    setup: TaskSetup
    instances: dict[int, list[Any]]
    hashes: dict[int, tuple[str, str]]
    aggregations: dict[str, Aggregation]
    lots: dict[int, Any]
    conversations: dict[str, Conversation]

    @property
    def filters(self) -> list[str]:
        """Names of the answer filters."""
        return [ensemble.name for ensemble in self.task._filters]


def build(run: TaskRun, file: TaskFile, path: Path, tokenizer: Any, digest: str | None) -> Task:
    """Load a task and build the requests of all its documents, as the command line does.

    Args:
        file: What its file says.
        path: The file to load, which may put local documents in place of the data set.
        digest: SHA-256 of local documents.

    Raises:
        SettingsError: The options do not fit it, or its file is malformed.
        BackendUnavailableError: Its data set cannot be had.
    """
    dataset = file.config.get("dataset_path")
    task = loading.load_task(run.task, path, dataset, tokenizer.name_or_path)
    _configure(task, run)
    templated = _templated(run, task, tokenizer)
    conversations: dict[str, Conversation] = {}
    template = _chat_template(tokenizer, run.options, conversations) if templated else None
    with loading.malformed_is_settings_error(run.task), loading.silence():
        task.build_all_requests(
            system_instruction=run.options.system_instruction,
            apply_chat_template=templated,
            fewshot_as_multiturn=templated,
            chat_template=template,
        )
        lots = _lots(task) if loading.draws_lots(file) else {}
        found = _collect(run, task, templated, digest, tokenizer, lots)
        return dataclasses.replace(found, conversations=conversations)


def _lots(task: Any) -> dict[int, Any]:
    """The random state before each document, as a full run of lm-eval comes upon it.

    IFEval's scorer draws a letter where a document asks to count one that is none ("!" or "#").
    Whatever the answers are, it draws as often, so scoring empty ones goes through the states.
    (The command's own draw also hangs on which packages draw when they are first imported.)
    """
    states: dict[int, Any] = {}
    state = random.getstate()
    for doc_id, doc in enumerate(task.eval_docs):
        # One object for a run of equal states: each holds 625 numbers.
        now = random.getstate()
        state = state if now == state else now
        states[doc_id] = state
        task.process_results(doc, [""])
    return states


def _configure(task: Any, run: TaskRun) -> None:
    """Apply the settings over the task's own, as the command line's options are applied."""
    own, wanted = task.get_config("num_fewshot"), run.options.num_fewshot
    if own == 0 and wanted:
        raise SettingsError(
            f"task {run.task} fixes num_fewshot to 0; lm-eval would ignore {wanted}",
            "Leave num_fewshot out.",
        )
    task.set_config("num_fewshot", own or 0 if wanted is None else wanted)
    task.set_fewshot_seed(loading.OTHER_SEED)
    if run.options.max_gen_toks is not None and task.OUTPUT_TYPE == "generate_until":
        limit = {"max_gen_toks": run.options.max_gen_toks}
        task.set_config("generation_kwargs", limit, update=True)


def _templated(run: TaskRun, task: Any, tokenizer: Any) -> bool:
    wanted, has_template = run.options.apply_chat_template, bool(tokenizer.chat_template)
    if wanted is True and not has_template:
        raise SettingsError(
            f"task {run.task} wants a chat template and the tokenizer has none",
            "Set apply_chat_template to auto or false.",
        )
    if isinstance(wanted, bool):
        return wanted
    return has_template and task.OUTPUT_TYPE == "generate_until"


def _chat_template(
    tokenizer: Any, options: TaskOptions, conversations: dict[str, Conversation]
) -> Callable[..., str]:
    """lm-eval's own rendering, which drops the system role where the template refuses it.

    Args:
        conversations: Takes what each prompt was made of.
    """
    from lm_eval.models.huggingface import HFLM

    model = SimpleNamespace(
        tokenizer=tokenizer, chat_template_args=options.chat_template_kwargs or {}
    )

    def rendered(history: list[dict[str, Any]], **how: Any) -> str:
        prompt = str(HFLM.apply_chat_template(model, history, **how))
        conversations[prompt] = Conversation(copy.deepcopy(history), model.chat_template_args)
        return prompt

    return rendered


def _collect(
    run: TaskRun,
    task: Any,
    templated: bool,
    digest: str | None,
    tokenizer: Any,
    lots: dict[int, Any],
) -> Task:
    """Group the requests by document, hash them and describe them."""
    instances: dict[int, list[Any]] = {}
    for instance in task.instances:
        instances.setdefault(instance.doc_id, []).append(instance)
    hashes = {doc_id: _hashes(group[0]) for doc_id, group in instances.items()}
    aggregations = _usable(run, task)
    return Task(
        task=task,
        instances=instances,
        hashes=hashes,
        aggregations=aggregations,
        lots=lots,
        conversations={},
        setup=TaskSetup(
            task=run.task,
            version=str(task.VERSION),
            task_hash=_task_hash(task, instances, hashes),
            n_documents=len(instances),
            output_type=task.OUTPUT_TYPE,
            num_fewshot=task.get_config("num_fewshot"),
            apply_chat_template=templated,
            fewshot_as_multiturn=templated,
            chat_template_kwargs=run.options.chat_template_kwargs or {},
            system_instruction=run.options.system_instruction,
            generation_kwargs=_generation_kwargs(task),
            add_bos=_adds_bos(tokenizer, str(task.instances[0].args[0])),
            documents=digest,
            think=(run.options.think or "strip") if task.OUTPUT_TYPE == "generate_until" else None,
        ),
    )


def _hashes(instance: Any) -> tuple[str, str]:
    """lm-eval's doc_hash and prompt_hash."""
    from lm_eval.utils import handle_non_serializable, hash_string

    document = json.dumps(
        instance.doc, indent=2, default=handle_non_serializable, ensure_ascii=False
    )
    return str(hash_string(document)), str(hash_string(instance.arguments[0]))


def _task_hash(
    task: Any, instances: dict[int, list[Any]], hashes: dict[int, tuple[str, str]]
) -> str:
    """lm-eval's: over the hashes of all documents, once for every answer filter."""
    from lm_eval.utils import hash_string

    targets = {i: str(task.doc_to_target(group[0].doc)) for i, group in instances.items()}
    samples = ["".join(hashes[i]) + hash_string(targets[i]) for i in instances]
    return str(hash_string("".join(samples) * len(task._filters)))


def _generation_kwargs(task: Any) -> dict[str, Any]:
    if task.OUTPUT_TYPE != "generate_until":
        return {}
    kwargs: dict[str, Any] = json.loads(json.dumps(task.instances[0].args[1], default=str))
    return kwargs


def _adds_bos(tokenizer: Any, prompt: str) -> bool | None:
    """Whether the first token is a BOS, which lm-eval adds unless the text begins with it."""
    if tokenizer.bos_token is None:
        return None
    return tokens.prompt_ids(tokenizer, prompt)[:1] == [tokenizer.bos_token_id]


def _usable(run: TaskRun, task: Any) -> dict[str, Aggregation]:
    """The metrics that are means over documents or over their instructions.

    Raises:
        SettingsError: The settings ask for another one.
    """
    known = task.aggregation()
    usable = {
        metric: aggregate
        for metric, aggregate in known.items()
        if points.by_document(aggregate) or points.by_instruction(aggregate)
    }
    filters = [ensemble.name for ensemble in task._filters]
    hint = f"Choose among {', '.join(usable) or 'other tasks'}."
    for wanted in run.metrics:
        if wanted.metric in known and wanted.metric not in usable:
            raise SettingsError(
                f"metric {wanted.metric} of task {run.task} is no mean over documents, so two "
                "models cannot be compared document by document",
                hint,
            )
        if wanted.metric is not None and wanted.metric not in usable:
            raise SettingsError(f"task {run.task} has no metric {wanted.metric}", hint)
        if wanted.filter is not None and wanted.filter not in filters:
            raise SettingsError(
                f"task {run.task} has no filter {wanted.filter}",
                f"Choose among {', '.join(filters)}.",
            )
    if not usable:
        raise SettingsError(f"no metric of task {run.task} is a mean over documents", hint)
    return usable
