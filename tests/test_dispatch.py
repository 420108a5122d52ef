"""Batches measured by several at a time: nothing is asked twice, and nothing measured is lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gate.dispatch import Batches, Replicated
from gate.errors import BackendError, GateError, NonFiniteLogitsError, OutOfMemoryError
from gate.journal import Journal
from gate.records import Points, ScoredDocument

IDS = list(range(20))


def scored(ids: Sequence[int]) -> list[ScoredDocument]:
    points = (Points(metric="acc", filter="none", score=1.0),)
    return [
        ScoredDocument(doc_id=i, doc_hash=f"d{i}", prompt_hash=f"p{i}", points=points) for i in ids
    ]


class Three:
    """Three that measure at the same time; what they cannot is told by its first document."""

    replicas = 3

    def __init__(self, fits: int = 99, fails: dict[int, GateError] | None = None) -> None:
        self.fits, self.fails = fits, fails or {}
        self.asked: list[list[list[int]]] = []

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        raise AssertionError("one at a time")

    def score_each(
        self, task: str, batches: Sequence[Sequence[int]]
    ) -> list[list[ScoredDocument] | GateError]:
        self.asked.append([list(batch) for batch in batches])
        return [self._one(batch) for batch in batches]

    def _one(self, batch: Sequence[int]) -> list[ScoredDocument] | GateError:
        if len(batch) > self.fits:
            return OutOfMemoryError("too many", "Ask for fewer.")
        return self.fails.get(batch[0]) or scored(batch)


def taken(batches: Batches) -> list[list[int]]:
    """Every batch, one after the other."""
    waiting, found = list(IDS), []
    while waiting:
        found.append([document.doc_id for document in batches.next("task", waiting)])
        waiting = waiting[len(found[-1]) :]
    return found


def test_batches_come_in_order_and_each_was_asked_once(tmp_path: Path) -> None:
    three = Three()
    assert isinstance(three, Replicated)
    with Journal(tmp_path / "run.jsonl") as journal:
        found = taken(Batches(three, 4, journal, halves=True))
    assert found == [IDS[i : i + 4] for i in range(0, 20, 4)]
    assert [len(asked) for asked in three.asked] == [3, 2]
    assert [batch for asked in three.asked for batch in asked] == found


def test_what_the_others_measured_is_kept_when_one_fails(tmp_path: Path) -> None:
    dead = BackendError("replica 1 has ended", "Start again.")
    with Journal(tmp_path / "run.jsonl") as journal, pytest.raises(BackendError, match="ended"):
        taken(Batches(Three(fails={0: dead}), 4, journal, halves=True))
    three = Three()
    with Journal(tmp_path / "run.jsonl") as journal:
        taken(Batches(three, 4, journal, halves=True))
    assert [batch[0] for asked in three.asked for batch in asked] == [0, 12, 16]


def test_an_error_ahead_waits_for_its_turn(tmp_path: Path) -> None:
    """A task may be settled before: then it is never met."""
    three = Three(fails={8: NonFiniteLogitsError("NaN", "Look.")})
    with Journal(tmp_path / "run.jsonl") as journal:
        batches = Batches(three, 4, journal, halves=True)
        assert batches.next("task", IDS) and batches.next("task", IDS[4:])
        with pytest.raises(NonFiniteLogitsError):
            batches.next("task", IDS[8:])


def test_a_batch_that_does_not_fit_is_halved_as_one_alone_would(tmp_path: Path) -> None:
    with Journal(tmp_path / "run.jsonl") as journal:
        batches = Batches(Three(fits=3), 4, journal, halves=True)
        assert taken(batches) == [IDS[i : i + 2] for i in range(0, 20, 2)]
        assert batches.size == 2
    with Journal(None) as journal, pytest.raises(OutOfMemoryError):
        taken(Batches(Three(fits=3), 4, journal, halves=False))
