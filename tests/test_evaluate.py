"""The driver: committed order, batches, resuming, and memory that runs out."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import results

from gate.backends.replay import Replay
from gate.batching import order
from gate.errors import BaselineMismatchError, OutOfMemoryError
from gate.evaluate import Evaluation, suite_digest
from gate.journal import Journal
from gate.records import EarlyStop, ScoredDocument, Shard

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


def evaluation(
    backend: Replay, journal: Journal, batch_size: int = 8, shard: Shard | None = None
) -> Evaluation:
    def progress(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda done: None)

    return Evaluation(backend, "seed", batch_size, journal, progress, shard)


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
        assert len(run.run("ifeval", first=10)) == 10
        assert run.task_results() == (), "an unfinished task has no result"
        assert len(run.run("ifeval")) == N
    assert [len(batch) for batch in backend.batches] == [8, 2, 8, 5]


def test_a_resumed_run_asks_only_for_what_is_missing_and_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path) as journal:
        evaluation(Recorded(), journal).run("ifeval", first=9)
    backend = Recorded()
    with Journal(path) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval")
    assert [len(batch) for batch in backend.batches] == [8, 7]
    assert run.task_results()[0].samples == backend.stored.tasks[0].samples


def test_memory_that_runs_out_halves_the_batch_and_a_resumed_run_follows(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    small = Recorded(fits=3)
    with Journal(path) as journal:
        evaluation(small, journal).run("ifeval", first=5)
    assert [len(batch) for batch in small.batches] == [2, 2, 1]
    backend = Recorded()
    with Journal(path) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval", first=5)
        run.run("ifeval")
    assert {len(batch) for batch in backend.batches} == {2}, "the sizes of the journal go on"
    asked = [i for batch in (*small.batches, *backend.batches) for i in batch]
    assert asked == order(range(N), "seed", "ifeval")


def test_one_document_that_does_not_fit_ends_the_run() -> None:
    with Journal(None) as journal, pytest.raises(OutOfMemoryError):
        evaluation(Recorded(fits=0), journal).run("ifeval")


def test_answers_of_other_weights_are_refused() -> None:
    stored = results.result(results.task([1.0]))
    with pytest.raises(BaselineMismatchError, match="belong to"):
        Replay(stored, "f" * 64)


class Long(Recorded):
    """Prompts of known lengths, the longer the later the document."""

    def prompt(self, task: str, doc_id: int) -> str | None:
        return "x" * (doc_id + 1)


def test_a_task_that_cannot_be_stopped_is_one_block_longest_first() -> None:
    backend = Long()
    with Journal(None) as journal:
        run = evaluation(backend, journal)
        run.run("ifeval", first=8)
        documents = run.run("ifeval")
    first = order(range(N), "seed", "ifeval")[:8]
    assert list(backend.batches[0]) == sorted(first, reverse=True)
    assert [i for batch in backend.batches[1:] for i in batch] == sorted(
        set(range(N)) - set(first), reverse=True
    )
    assert [document.doc_id for document in documents] == order(range(N), "seed", "ifeval")
    assert run.batch_plan == "one block, static batches of 8, sorted by length"


class Watching:
    """Stops after so many documents; remembers what it was shown."""

    def __init__(self, after: int = N) -> None:
        self.after, self.seen = after, [[0]]

    def decided(self, task: str, documents: Sequence[ScoredDocument]) -> EarlyStop | None:
        self.seen.append([document.doc_id for document in documents])
        if len(documents) < self.after:
            return None
        return EarlyStop(reason="enough", n_planned=N, outcome="fail", certain=True)


def test_who_decides_sees_no_document_before_all_earlier_ones() -> None:
    backend, stop = Long(), Watching(after=9)
    planned = order(range(N), "seed", "ifeval")
    with Journal(None) as journal:
        run = evaluation(backend, journal, batch_size=2)
        run.run("ifeval", stop=stop)
    assert all(seen == planned[: len(seen)] for seen in stop.seen[1:])
    asked = [i for batch in backend.batches for i in batch]
    assert asked != planned[: len(asked)], "blocks are sorted by length"
    (result,) = run.task_results()
    seen = {sample.doc_id for sample in result.samples}
    assert seen == set(stop.seen[-1]) and len(seen) >= 9
    assert run.batch_plan.startswith("blocks of up to 1/8")


class Dying(Long):
    """Is killed instead of scoring its nth batch."""

    def __init__(self, fits: int, lives: int) -> None:
        super().__init__(fits)
        self.lives = lives

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        if len(self.batches) == self.lives:
            raise KeyboardInterrupt
        return super().score(task, doc_ids)


@pytest.mark.parametrize("lives", range(9))
def test_a_run_that_was_killed_goes_on_with_the_batches_that_it_would_have_made(
    lives: int, tmp_path: Path
) -> None:
    def measured(backend: Long, journal: Journal, batch_size: int = 8) -> None:
        run = evaluation(backend, journal, batch_size)
        run.run("ifeval", first=6)
        run.run("ifeval", stop=Watching())

    whole, killed, resumed = Long(fits=5), Dying(5, lives), Long(fits=5)
    with Journal(None) as journal:
        measured(whole, journal)
    with Journal(tmp_path / "run.jsonl") as journal, contextlib.suppress(KeyboardInterrupt):
        measured(killed, journal)
    with Journal(tmp_path / "run.jsonl") as journal:
        measured(resumed, journal, batch_size=4)  # as it may be where it follows free memory
    assert killed.batches + resumed.batches == whole.batches


def test_a_shard_runs_batches_of_the_single_run() -> None:
    whole, asked = Long(), []
    with Journal(None) as journal:
        evaluation(whole, journal, 4).run("ifeval")
    for index in (1, 2, 3):
        part = Long()
        with Journal(None) as journal:
            run = evaluation(part, journal, 4, Shard(index=index, count=3, settings="0" * 64))
            documents = run.run("ifeval")
        assert part.batches == whole.batches[index - 1 :: 3]
        committed = order(range(N), "seed", "ifeval")
        ids = [document.doc_id for document in documents]
        assert ids == [i for i in committed if i in set(ids)]
        assert len(run.task_results()[0].samples) == len(ids)
        asked += part.batches
    assert sorted(asked) == sorted(whole.batches)


def test_a_shard_does_not_change_the_batches() -> None:
    """Of which other machines measure their part."""
    shard = Shard(index=1, count=2, settings="0" * 64)
    with Journal(None) as journal, pytest.raises(OutOfMemoryError):
        evaluation(Recorded(fits=3), journal, 4, shard).run("ifeval")
