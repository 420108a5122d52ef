"""The same model again, in other batches; how far it differs from itself."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy

from gate.errors import SettingsError
from gate.journal import Journal
from gate.records import EvalResult, Rerun, SampleScore
from gate.run import Run
from gate.stats import rerun
from gate.verdict import PERPLEXITY


@contextmanager
def again(run: Run, number: int) -> Iterator[Run]:
    """A run with the same loaded model, in which other prompts share a batch.

    Its journal is its own: a killed repeat does not measure the first run again.

    Args:
        run: Entered, and measured as far as its batch size is known to fit.
        number: Of the repeat, from 1; the same number asks in the same order.

    Raises:
        SettingsError: Stored answers do not change.
    """
    if run.stored_answers:
        raise SettingsError(
            "stored answers are the same however often they are read",
            "Run the model: backend: hf in quant-gate.yaml.",
        )
    other = copy(run)
    other.seed = hashlib.sha256(f"{run.seed}/{number}".encode()).hexdigest()
    path = run.journal.path
    other.journal = Journal(path.with_suffix(f".{number}.jsonl") if path else None)
    run.journals.append(other.journal)
    size = run.evaluation.batch_size
    with other.journal:
        # One less: of few prompts the same would meet again; and it fits.
        other.begin(size - 1 if size > 1 else 2)
        other.evaluation.by_order = True
        yield other


def repeated(run: Run, runs: int) -> EvalResult:
    """What a run measured, with how far the same model, run again, differs from it.

    Args:
        run: Whose texts and tasks are measured.
        runs: How often the model runs in all; 1 for no repeat.

    Raises:
        SettingsError: Stored answers do not change.
    """
    first, others = run.result(), []
    for number in range(1, runs):
        with again(run, number) as other:
            other.texts()
            other.tasks()
            others.append(other.result())
    if not others:
        return first
    took = round(time.monotonic() - run.subject.started, 1)
    return first.model_copy(
        update={"reruns": tuple(reruns(first, others)), "duration_s": took},
    )


def reruns(first: EvalResult, others: Sequence[EvalResult]) -> Iterator[Rerun]:
    """Every metric of the first run, beside the same of the others.

    Args:
        others: At least one, of the same documents and windows.
    """
    runs = 1 + len(others)
    for task in first.tasks:
        name = task.task, task.metric, task.filter
        scores = [sample.score for sample in task.samples]
        again = [sample.score for other in others for sample in _samples(other, name)]
        yield _rerun(name, runs, scores * len(others), again)
    for text in first.perplexities:
        nll = [total / text.scored for total in text.window_nll]
        again = [nll / text.scored for other in others for nll in _windows(other, text.name)]
        yield _rerun((PERPLEXITY, text.name, "none"), runs, nll * len(others), again)


def _samples(result: EvalResult, name: tuple[str, str, str]) -> tuple[SampleScore, ...]:
    found = result.task(*name)
    return found.samples if found else ()


def _windows(result: EvalResult, name: str) -> tuple[float, ...]:
    found = result.perplexity(name)
    return found.window_nll if found else ()


def _rerun(
    name: tuple[str, str, str], runs: int, first: Sequence[float], again: Sequence[float]
) -> Rerun:
    flips, square = rerun.difference(first, again)
    task, metric, answer_filter = name
    return Rerun(
        task=task,
        metric=metric,
        filter=answer_filter,
        runs=runs,
        n=len(again),
        flips=flips,
        mean_square=square,
    )
