"""The driver: committed order, batches, resuming, and memory that runs out."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import results

from gate.backends.replay import Replay
from gate.errors import BaselineMismatchError, OutOfMemoryError
from gate.evaluate import Evaluation, order, suite_digest
from gate.journal import Journal
from gate.records import ScoredDocument

N = 23


class Recorded(Replay):
    """Stored answers that remember how they were asked for, and hold only so many at a time."""

    def __init__(self, fits: int = N) -> None:
        stored = results.result(
            results.task([float(i % 3 == 0) for i in range(N)]),
            setups=(results.setup(n_documents=N),),
        )
        super().__init__(stored, stored.weights_digest)
        self.fits = fits
        self.batches: list[tuple[int, ...]] = []

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        if len(doc_ids) > self.fits:
            raise OutOfMemoryError("too many", "ask for fewer")
        self.batches.append(tuple(doc_ids))
        return super().score(task, doc_ids)


def evaluation(backend: Replay, journal: Journal, batch_size: int = 8) -> Evaluation:
    return Evaluation(
        backend, "seed", batch_size, journal, lambda label, total: nullcontext(lambda done: None)
    )


def test_the_order_is_committed_by_seed_and_task() -> None:
    ids = range(100)
    first = order(ids, "seed", "ifeval")
    assert first == order(list(reversed(ids)), "seed", "ifeval")
    assert sorted(first) == list(ids)
    assert first != list(ids)
    assert first != order(ids, "other", "ifeval") and first != order(ids, "seed", "gsm8k")


def test_another_suite_has_another_digest() -> None:
    assert suite_digest([results.setup()]) == suite_digest([results.setup(version="9")])
    assert suite_digest([results.setup()]) != suite_digest([results.setup(task_hash="f" * 64)])


def test_every_document_is_scored_once_and_stored_in_document_order() -> None:
    backend = Recorded()
    with Journal(None) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval")
    (result,) = run.task_results()
    assert result.samples == backend.stored.tasks[0].samples
    assert [len(batch) for batch in backend.batches] == [8, 8, 7]
    assert [i for batch in backend.batches for i in batch] == order(range(N), "seed", "ifeval")


def test_a_look_at_the_first_answers_is_part_of_the_run() -> None:
    backend = Recorded()
    with Journal(None) as journal:
        run = evaluation(backend, journal)
        assert len(run.run("ifeval", at_least=10)) == 16
        assert run.task_results() == (), "an unfinished task has no result"
        assert len(run.run("ifeval")) == N
    assert [len(batch) for batch in backend.batches] == [8, 8, 7]


def test_a_resumed_run_asks_only_for_what_is_missing_and_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path) as journal:
        evaluation(Recorded(), journal).run("ifeval", at_least=9)
    backend = Recorded()
    with Journal(path) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval")
    assert [len(batch) for batch in backend.batches] == [7]
    assert run.task_results()[0].samples == backend.stored.tasks[0].samples


def test_memory_that_runs_out_halves_the_batch_and_a_resumed_run_follows(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    small = Recorded(fits=3)
    with Journal(path) as journal:
        evaluation(small, journal).run("ifeval", at_least=5)
    assert [len(batch) for batch in small.batches] == [2, 2, 2]
    backend = Recorded()
    with Journal(path) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval")
    assert {len(batch) for batch in backend.batches} == {2, 1}, "the sizes of the journal go on"
    asked = [i for batch in (*small.batches, *backend.batches) for i in batch]
    assert asked == order(range(N), "seed", "ifeval")


def test_one_document_that_does_not_fit_ends_the_run() -> None:
    with Journal(None) as journal, pytest.raises(OutOfMemoryError):
        evaluation(Recorded(fits=0), journal).run("ifeval")


def test_answers_of_other_weights_are_refused() -> None:
    stored = results.result(results.task([1.0]))
    with pytest.raises(BaselineMismatchError, match="belong to"):
        Replay(stored, "f" * 64)
