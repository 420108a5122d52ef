"""Run a model over tasks and texts: the contract `Backend` and its driver."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import takewhile
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from gate import batching
from gate.batching import order
from gate.dispatch import Batches
from gate.journal import Journal
from gate.records import (
    Answer,
    EarlyStop,
    RoundingFloor,
    ScoredDocument,
    Served,
    Shard,
    TaskResult,
    TaskSetup,
)
from gate.results import by_metric
from gate.speed import Clock, Generated, Workload

if TYPE_CHECKING:
    import numpy as np

    from gate.drift import Reading


class Backend(Protocol):
    """Runs one checkpoint. A context manager: entering loads the model.

    Attributes:
        device: Where it runs, for example `cpu` or `NVIDIA H100 80GB HBM3`.
        dtype: Of the computation.
        kernel: How quantized layers are computed, in words.
        emulated: Whether quantized weights are decoded and computed as unquantized ones.
        versions: Packages that the result depends on.
        served: Who runs the model, where it is a server that loaded it.
    """

    device: str
    dtype: str
    kernel: str
    emulated: bool
    versions: dict[str, str]
    served: Served | None

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

    def fitting(self) -> int:
        """How many documents fit into memory together, by arithmetic; after entering."""
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

    def read(
        self,
        windows: "np.ndarray",
        *,
        top: int = 0,
        at: "np.ndarray | None" = None,
        progress: Callable[[int], None] | None = None,
    ) -> "Reading":
        """What the model says of every token but a window's first, given those before it.

        Args:
            windows: int64, shape (windows, window); as many are read together as fit.
            top: Most likely tokens to give back, as many as there are at most.
            at: Tokens whose log-probabilities are wanted: int32, shape (windows, window - 1, k).
            progress: Told how many windows were read since.

        Raises:
            OutOfMemoryError: One window does not fit.
            NonFiniteLogitsError: The model computed NaN or infinity.
        """
        ...

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """Continue random prompts greedily by so many tokens, past any end token, for their speed.

        Raises:
            BackendUnavailableError: It runs no model.
            OutOfMemoryError: As `score`.
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


def suite_digest(setups: Sequence[TaskSetup]) -> str:
    """SHA-256 over what every task asks."""
    asked = sorted((setup.task, setup.task_hash) for setup in setups)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


class Evaluation:
    """One checkpoint being measured: every finished batch is journalled.

    Args:
        backend: Entered already.
        seed: Of the order of documents.
        batch_size: Documents generated together, unless the journal shows with how many the run
            began; halved when they do not fit.
        journal: Entered already.
        progress: How to show progress.
        shard: Whose batches are measured; None for all.

    Attributes:
        by_order: Whether tasks are asked in blocks even where all of them is wanted: then the
            order says who shares a batch, and not the length alone.
    """

    def __init__(
        self,
        backend: Backend,
        seed: str,
        batch_size: int,
        journal: Journal,
        progress: Progress,
        shard: Shard | None = None,
    ) -> None:
        self.backend = backend
        # Another batch size would be another plan, of which other shards measure their parts.
        self._batches = Batches(backend, batch_size, journal, halves=shard is None)
        self.progress, self.shard = progress, shard
        self.documents: dict[str, list[ScoredDocument]] = {}
        self.stopped: dict[str, EarlyStop] = {}
        self._scored: dict[str, dict[int, ScoredDocument]] = {}
        self._in_blocks = False
        self.by_order = False
        self.orders = {
            setup.task: self._share(
                setup.task, order(backend.doc_ids(setup.task), seed, setup.task)
            )
            for setup in backend.setups()
        }

    def run(
        self, task: str, first: int | None = None, stop: StopRule | None = None
    ) -> list[ScoredDocument]:
        """Score a task's documents, and give them back in their committed order.

        They are asked for in blocks of that order, the longest prompts of a block first. Who
        decides sees those that are complete up to the first one that is not: answers that take
        long are no better or worse than they are.

        Args:
            task: Its name.
            first: Only so many of the first ones, as a block of their own; None for all.
            stop: Asked before each batch whether the rest is needed.

        Returns:
            Every document up to the first that is not scored yet, in committed order.
        """
        order = self.orders[task]
        scored, done = self._scored.setdefault(task, {}), self.documents.setdefault(task, [])
        with self.progress(task, len(order)) as advance:
            advance(len(scored))
            whole = stop is None and not self.by_order
            for block in self._blocks(task, first, whole=whole):
                waiting = batching.longest_first(block, partial(self._length, task))
                while waiting:
                    if stop is not None and (settled := stop.decided(task, done)):
                        self.stopped[task] = settled
                        return done
                    batch = self._batches.next(task, waiting)
                    waiting = waiting[len(batch) :]
                    scored |= {document.doc_id: document for document in batch}
                    done += _complete(scored, order[len(done) :])
                    advance(len(batch))
        return done

    @property
    def batch_size(self) -> int:
        """Documents in the next batch."""
        return self._batches.size

    @property
    def batch_plan(self) -> str:
        """How documents were put together, in words."""
        blocks = f"blocks of up to 1/{batching.BLOCKS}" if self._in_blocks else "one block"
        return f"{blocks}, static batches of {self.batch_size}, sorted by length"

    def _blocks(self, task: str, first: int | None, *, whole: bool) -> list[list[int]]:
        """What is left of a task, or of its first documents."""
        order, done = self.orders[task], len(self.documents[task])
        if first is not None or whole:
            blocks = [order[done:first]]
        else:
            self._in_blocks = True
            blocks = batching.blocks(order, done, self.batch_size)
        scored = self._scored[task]
        return [[doc_id for doc_id in block if doc_id not in scored] for block in blocks]

    def _share(self, task: str, order: list[int]) -> list[int]:
        """What is measured of a task: all of it, or the batches of a shard."""
        if self.shard is None:
            return order
        planned = batching.longest_first(order, partial(self._length, task))
        taken = set(batching.share(planned, self.batch_size, self.shard))
        return [doc_id for doc_id in order if doc_id in taken]

    def _length(self, task: str, doc_id: int) -> int:
        return len(self.backend.prompt(task, doc_id) or "")

    def answers(self, task: str) -> tuple[Answer, ...]:
        """What the model wrote so far, in committed order; none for multiple choice."""
        return tuple(d.answer for d in self.documents.get(task, ()) if d.answer is not None)

    def task_results(self) -> tuple[TaskResult, ...]:
        """Every metric of every task that was run to its end or stopped, in document order."""
        return tuple(
            result.model_copy(update={"early_stop": self.stopped.get(setup.task)})
            for setup in self.backend.setups()
            if setup.task in self.stopped
            or len(self.documents.get(setup.task, ())) == self._planned(setup)
            for result in by_metric(
                setup.task,
                self.documents[setup.task],
                partial(self.backend.higher_is_better, setup.task),
            )
        )

    def _planned(self, setup: TaskSetup) -> int:
        return len(self.orders[setup.task]) if self.shard else setup.n_documents


def _complete(
    scored: Mapping[int, ScoredDocument], order: Sequence[int]
) -> Iterator[ScoredDocument]:
    """The first documents of an order, up to one that is not scored yet."""
    return (scored[doc_id] for doc_id in takewhile(scored.__contains__, order))
