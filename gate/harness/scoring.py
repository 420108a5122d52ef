"""From responses to points: think blocks taken out, and no document dropped."""

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

from gate.errors import BackendError
from gate.harness import loading, thinking
from gate.harness.generation import LanguageModel
from gate.harness.points import by_instruction, earned
from gate.harness.task import Task
from gate.harness.thinking import Markers, Thinking
from gate.records import Answer, Points, ScoredDocument

UNSCORABLE = (*loading.MALFORMED, ArithmeticError, RecursionError)
"""What a task's scorer raises on an answer that it did not expect."""


def take_out_thinking(
    task: Task, instances: Sequence[Any], known: Sequence[Markers]
) -> dict[int, Thinking]:
    """Take think blocks out of the responses, where the task strips them.

    lm-eval's own `think_end_token` is not used: it also cuts an answer that only mentions the
    marker, and leaves no trace of what it cut.

    Args:
        task: What was asked.
        instances: Its requests with their responses.
        known: Markers to look for.

    Returns:
        Document id to how its block ended; without those that have none.

    Raises:
        BackendError: An answer holds a block, and the task refuses them.
    """
    found: dict[int, Thinking] = {}
    if task.setup.think is None:
        return found
    for instance in instances:
        for position, response in enumerate(instance.resps):
            answer, ended = thinking.split(response, str(instance.args[0]), known)
            if ended is not None:
                found.setdefault(instance.doc_id, ended)
            if ended is not None and task.setup.think == "refuse":
                raise _refusal(task, instance.doc_id, ended)
            if task.setup.think == "strip":
                instance.resps[position] = answer
    return found


def _refusal(task: Task, doc_id: int, ended: Thinking) -> BackendError:
    name, limit = task.setup.task, task.setup.generation_kwargs.get("max_gen_toks")
    if ended == "unclosed":
        return BackendError(
            f"task {name} refuses think blocks, and the answer to document {doc_id} ends inside "
            f"one (max_gen_toks is {limit})",
            "Turn thinking off with chat_template_kwargs, or raise max_gen_toks and set think: "
            "strip.",
        )
    return BackendError(
        f"task {name} refuses think blocks, and the answer to document {doc_id} begins with one",
        "Turn thinking off with chat_template_kwargs, or set think: strip.",
    )


def scored(
    task: Task,
    doc_id: int,
    group: Sequence[Any],
    lm: LanguageModel,
    thought: Mapping[int, Thinking],
) -> ScoredDocument:
    """One document with its points in every metric and, where text was generated, its answer.

    A document that the task's scorer cannot score is lost: it gets the worst score and says so.

    Args:
        task: What was asked.
        doc_id: Of which document.
        group: Its requests, with filtered responses.
        lm: What answered them.
        thought: See `take_out_thinking`.
    """
    points: list[Points] = []
    lost = None
    for name in task.filters:
        responses = [instance.filtered_resps[name] for instance in group]
        try:
            values = _values(task, doc_id, group, responses)
        except UNSCORABLE as error:
            lost = f"scoring, {type(error).__name__}"
            values = _worst(task, doc_id, group)
        points += [
            earned(metric, name, values[metric], aggregate, group[0].doc)
            for metric, aggregate in task.aggregations.items()
            if metric in values
        ]
    doc_hash, prompt_hash = task.hashes[doc_id]
    return ScoredDocument(
        doc_id=doc_id,
        doc_hash=doc_hash,
        prompt_hash=prompt_hash,
        points=tuple(points),
        answer=_written(doc_id, group[0], lm, thought),
        lost=lost,
    )


def _values(task: Task, doc_id: int, group: Sequence[Any], responses: Sequence[Any]) -> Any:
    """What lm-eval's scorer makes of the responses: metric to value."""
    if doc_id in task.lots:
        random.setstate(task.lots[doc_id])
    return task.task.process_results(copy.deepcopy(group[0].doc), list(responses))


def _worst(task: Task, doc_id: int, group: Sequence[Any]) -> dict[str, Any]:
    """The worst value of every metric, in the shape that an empty answer's has.

    Raises:
        BackendError: Not even an empty answer can be scored.
    """
    try:
        shapes = _values(task, doc_id, group, [""] * len(group))
    except UNSCORABLE as error:
        raise BackendError(
            f"task {task.setup.task} cannot score document {doc_id}, whatever is answered: "
            f"{type(error).__name__}",
            "Mend the task's scorer or its documents.",
        ) from error
    higher = task.task.higher_is_better()
    return {
        metric: [float(not higher.get(metric, True))] * len(value)
        if by_instruction(task.aggregations[metric])
        else float(not higher.get(metric, True))
        for metric, value in shapes.items()
        if metric in task.aggregations
    }


def _written(
    doc_id: int, instance: Any, lm: LanguageModel, thought: Mapping[int, Thinking]
) -> Answer | None:
    if instance.request_type != "generate_until":
        return None
    tokens, ended = lm.generations[instance.args[0]].pop(0)
    return Answer(
        doc_id=doc_id,
        text=instance.resps[0],
        tokens=tokens,
        finish="stop" if ended else "length",
        thinking=thought.get(doc_id),
    )
