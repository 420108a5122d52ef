"""Batches of documents, each measured once: what the journal has is not asked for again."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gate.errors import GateError, OutOfMemoryError
from gate.journal import Journal
from gate.records import ScoredDocument


class Scorer(Protocol):
    """What a backend must do to have documents measured."""

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """Run these documents together, as one batch; see `evaluate.Backend`."""
        ...


@runtime_checkable
class Replicated(Scorer, Protocol):
    """One that measures several batches at a time."""

    replicas: int

    def score_each(
        self, task: str, batches: Sequence[Sequence[int]]
    ) -> list[list[ScoredDocument] | GateError]:
        """Measure as many batches as there are replicas, each by one; or why that failed."""
        ...


class Batches:
    """Gives one batch after the other.

    Args:
        scorer: Asked for what is not in the journal.
        size: Documents in a batch, unless the journal shows with how many the run began.
        journal: Entered already.
        halves: Whether a batch that does not fit is halved, and all that follow.

    Attributes:
        size: Documents in the next batch.
    """

    def __init__(self, scorer: Scorer, size: int, journal: Journal, *, halves: bool) -> None:
        self.size = journal.begun(size)
        self._scorer, self._journal, self._halves = scorer, journal, halves

    def next(self, task: str, waiting: Sequence[int]) -> list[ScoredDocument]:
        """The next batch, from the journal if it is there.

        A batch's composition changes BF16 answers, so a resumed run makes batches smaller just
        where the run before it had to.

        Args:
            waiting: Documents in the order in which they are cut into batches; at least one.

        Raises:
            OutOfMemoryError: It does not fit, and may not be halved.
        """
        while True:
            ids = waiting[: self.size]
            kept = self._journal.batch(task, ids)
            if kept is not None:
                return kept
            smaller = self._journal.halved(task, ids)
            if smaller is None:
                try:
                    scored = self._score(task, waiting)
                except OutOfMemoryError:
                    if len(ids) == 1 or not self._halves:
                        raise
                    smaller = len(ids) // 2
                    self._journal.add_halved(task, ids, smaller)
                else:
                    return scored
            self.size = smaller

    def _score(self, task: str, waiting: Sequence[int]) -> list[ScoredDocument]:
        """The next batch; where there are replicas, those after it at the same time.

        What went wrong with one of those is met again when its turn comes.
        """
        if not isinstance(self._scorer, Replicated):
            ids = waiting[: self.size]
            scored = self._scorer.score(task, ids)
            self._journal.add_batch(task, ids, scored)
            return scored
        starts = range(0, len(waiting), self.size)
        cut = (waiting[start : start + self.size] for start in starts)
        ahead = [ids for ids in cut if self._journal.batch(task, ids) is None]
        ahead = ahead[: self._scorer.replicas]
        found = self._scorer.score_each(task, ahead)
        for ids, each in zip(ahead, found, strict=True):
            if not isinstance(each, GateError):
                self._journal.add_batch(task, ids, each)
        if isinstance(found[0], GateError):
            raise found[0]
        return found[0]
