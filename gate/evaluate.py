"""Run a model over tasks and texts: the contract `Backend` and its driver."""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from gate import drift
from gate.errors import OutOfMemoryError
from gate.journal import Journal
from gate.records import (
    Answer,
    EarlyStop,
    Part,
    PerplexityResult,
    RoundingFloor,
    SampleScore,
    ScoredDocument,
    TaskResult,
    TaskSetup,
)
from gate.settings import PerplexityText

if TYPE_CHECKING:
    import numpy as np


class Backend(Protocol):
    """Runs one checkpoint. A context manager: entering loads the model.

    Attributes:
        device: Where it runs, for example `cpu` or `NVIDIA H100 80GB HBM3`.
        dtype: Of the computation.
        kernel: How quantized layers are computed, in words.
        versions: Packages that the result depends on.
    """

    device: str
    dtype: str
    kernel: str
    versions: dict[str, str]

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def setups(self) -> tuple[TaskSetup, ...]:
        """How each task is asked; available before entering."""
        ...

    def doc_ids(self, task: str) -> Sequence[int]:
        """Every document of a task; available before entering."""
        ...

    def prompt(self, task: str, doc_id: int) -> str | None:
        """The text that the model is given, None where it was not kept; before entering."""
        ...

    def higher_is_better(self, task: str, metric: str) -> bool:
        """Whether more of a metric is better; available before entering."""
        ...

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """Run these documents together, as one batch, and score them.

        Raises:
            OutOfMemoryError: They do not fit together.
            NonFiniteLogitsError: The model computed NaN or infinity.
        """
        ...

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before every text; None if none; before entering."""
        ...

    def token_ids(self, text: str) -> "np.ndarray":
        """The text's tokens without special ones: int64, shape (tokens,); before entering."""
        ...

    def logprobs(self, token_ids: "np.ndarray") -> "np.ndarray":
        """Log-probability in nats of every token but the first, given those before it.

        Args:
            token_ids: int64, shape (windows, window).

        Returns:
            float32, shape (windows, window - 1).

        Raises:
            OutOfMemoryError, NonFiniteLogitsError: As `score`.
        """
        ...

    def rounding_floor(self, token_ids: "np.ndarray") -> RoundingFloor | None:
        """What another rounding order of the activations does; None if none are quantized."""
        ...


class StopRule(Protocol):
    """Says when a task need not be run to its end."""

    def decided(self, task: str, documents: Sequence[ScoredDocument]) -> EarlyStop | None:
        """Why the rest of a task is not needed; given all its documents so far, in order."""
        ...


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Given a label and a total, a context whose value is told how much was done since."""

FLOOR_WINDOWS = 2
"""Windows on which the rounding floor is measured."""


def suite_digest(setups: Sequence[TaskSetup]) -> str:
    """SHA-256 over what every task asks."""
    asked = sorted((setup.task, setup.task_hash) for setup in setups)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def order(doc_ids: Sequence[int], seed: str, task: str) -> list[int]:
    """The documents in their committed random order: the same for the same seed and task."""
    shuffled = sorted(doc_ids)
    # A repeated run of the same candidate must not draw again; no secret hangs on it.
    random.Random(f"{seed}/{task}").shuffle(shuffled)  # noqa: S311
    return shuffled


class Evaluation:
    """One checkpoint being measured: every finished batch is journalled.

    Args:
        backend: Entered already.
        seed: Of the order of documents.
        batch_size: Documents generated together; halved when they do not fit.
        journal: Entered already.
        progress: How to show progress.
    """

    def __init__(
        self, backend: Backend, seed: str, batch_size: int, journal: Journal, progress: Progress
    ) -> None:
        self.backend = backend
        self.batch_size = batch_size
        self.journal = journal
        self.progress = progress
        self.perplexities: list[PerplexityResult] = []
        self.rounding_floor: RoundingFloor | None = None
        self.documents: dict[str, list[ScoredDocument]] = {}
        self.stopped: dict[str, EarlyStop] = {}
        self.orders = {
            setup.task: order(backend.doc_ids(setup.task), seed, setup.task)
            for setup in backend.setups()
        }

    def measure_text(self, text: PerplexityText, content: str) -> PerplexityResult:
        """Perplexity of one text, prefill only."""
        result = self.journal.perplexities.get(text.label)
        if result is None:
            with self.progress(f"perplexity of {text.label}", text.windows) as advance:
                result = drift.perplexity(self.backend, text, content, advance)
            self.journal.add_perplexity(result)
        self.perplexities.append(result)
        return result

    def measure_rounding_floor(self, text: PerplexityText, content: str) -> RoundingFloor | None:
        """What a last-bit change of rounding does, on the first windows of a text."""
        self.rounding_floor = self.journal.rounding_floor
        if self.rounding_floor is None:
            windows = drift.text_windows(self.backend, text, content)[:FLOOR_WINDOWS]
            self.rounding_floor = self.backend.rounding_floor(windows)
            if self.rounding_floor is not None:
                self.journal.add_rounding_floor(self.rounding_floor)
        return self.rounding_floor

    def run(
        self, task: str, at_least: int | None = None, stop: StopRule | None = None
    ) -> list[ScoredDocument]:
        """Score a task's documents in their committed order.

        Args:
            task: Its name.
            at_least: Stop after the batch that reaches this count; None for all.
            stop: Asked after each batch whether the rest is needed.

        Returns:
            Every document scored so far, in committed order.
        """
        planned = self.orders[task]
        target = len(planned) if at_least is None else min(at_least, len(planned))
        done = self.documents.setdefault(task, [])
        with self.progress(task, len(planned)) as advance:
            advance(len(done))
            while len(done) < target:
                if stop is not None and (settled := stop.decided(task, done)):
                    self.stopped[task] = settled
                    break
                batch = self._next_batch(task, planned[len(done) :])
                done += batch
                advance(len(batch))
        return done

    def answers(self, task: str) -> tuple[Answer, ...]:
        """What the model wrote so far, in committed order; none for multiple choice."""
        return tuple(d.answer for d in self.documents.get(task, ()) if d.answer is not None)

    def task_results(self) -> tuple[TaskResult, ...]:
        """Every metric of every task that was run to its end or stopped, in document order."""
        return tuple(
            result.model_copy(update={"early_stop": self.stopped.get(setup.task)})
            for setup in self.backend.setups()
            if setup.task in self.stopped
            or len(self.documents.get(setup.task, ())) == setup.n_documents
            for result in _task_results(setup.task, self.documents[setup.task], self.backend)
        )

    def _next_batch(self, task: str, remaining: Sequence[int]) -> list[ScoredDocument]:
        """The next batch, from the journal if it is there.

        A batch's composition changes BF16 answers, so a resumed run follows the sizes that the
        journal shows, halved ones included.
        """
        size = self.batch_size
        while size:
            kept = self.journal.batch(task, remaining[:size])
            if kept is not None:
                self.batch_size = size
                return kept
            size //= 2
        while True:
            ids = remaining[: self.batch_size]
            try:
                scored = self.backend.score(task, ids)
            except OutOfMemoryError:
                if len(ids) == 1:
                    raise
                self.batch_size = max(1, len(ids) // 2)
                continue
            self.journal.add_batch(task, ids, scored)
            return scored


def _task_results(
    task: str, documents: Sequence[ScoredDocument], backend: Backend
) -> list[TaskResult]:
    in_order = sorted(documents, key=lambda document: document.doc_id)
    samples: dict[tuple[str, str], list[SampleScore]] = {}
    parts: dict[tuple[str, str], list[tuple[Part, ...]]] = {}
    for document in in_order:
        for points in document.points:
            parts.setdefault((points.metric, points.filter), []).append(points.parts)
            samples.setdefault((points.metric, points.filter), []).append(
                SampleScore(
                    doc_id=document.doc_id,
                    doc_hash=document.doc_hash,
                    prompt_hash=document.prompt_hash,
                    score=points.score,
                    weight=points.weight,
                )
            )
    return [
        TaskResult(
            task=task,
            metric=metric,
            filter=answer_filter,
            higher_is_better=backend.higher_is_better(task, metric),
            samples=tuple(found),
            parts=tuple(parts[metric, answer_filter]) if any(parts[metric, answer_filter]) else (),
        )
        for (metric, answer_filter), found in samples.items()
    ]
