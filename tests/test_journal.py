"""A killed run resumes from its journal."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.errors import BackendError, GateError
from gate.journal import Journal
from gate.records import PerplexityResult, Points, RoundingFloor, ScoredDocument


def document(doc_id: int) -> ScoredDocument:
    points = Points(metric="acc", filter="none", score=1.0)
    return ScoredDocument(
        doc_id=doc_id, doc_hash=f"d{doc_id}", prompt_hash=f"p{doc_id}", points=(points,)
    )


def fill(path: Path) -> None:
    with Journal(path) as journal:
        journal.add_batch("task", [3, 1], [document(3), document(1)])
        journal.add_rounding_floor(RoundingFloor(kl=0.03, codes_changed=0.004, tokens=10))
        journal.add_perplexity(
            PerplexityResult(
                name="text",
                text_digest="t",
                tokens_digest="k",
                window=4,
                window_nll=(1.0, float("nan")),
                scored=3,
            )
        )
        journal.add_batch("task", [2], [document(2)])


def test_completed_work_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "run.jsonl"
    fill(path)
    with Journal(path) as journal:
        assert journal.batch("task", [3, 1]) == [document(3), document(1)]
        assert journal.batch("task", [2]) == [document(2)]
        assert journal.rounding_floor is not None
        assert journal.rounding_floor.kl == 0.03
        assert journal.perplexities["text"].scored == 3


@pytest.mark.parametrize("scored", [[3], [1, 3], [3, 1, 2]])
def test_a_batch_accounts_for_every_document_that_was_asked(scored: list[int]) -> None:
    with Journal(None) as journal, pytest.raises(BackendError, match="asked 2 documents of task"):
        journal.add_batch("task", [3, 1], list(map(document, scored)))


def test_a_batch_of_other_composition_is_measured_again(tmp_path: Path) -> None:
    fill(tmp_path / "run.jsonl")
    with Journal(tmp_path / "run.jsonl") as journal:
        assert journal.batch("task", [1, 3]) is None
        assert journal.batch("other", [3, 1]) is None


@given(cut=st.integers(min_value=0), junk=st.binary(max_size=40))
def test_any_torn_end_keeps_whole_lines_and_can_be_appended_to(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    fill(path)
    raw = path.read_bytes()
    kept = raw[: cut % (len(raw) + 1)]
    path.write_bytes(kept + junk.replace(b"\n", b" "))
    with Journal(path) as journal:
        before = len(journal.batches)
        journal.add_batch("task", [9], [document(9)])
    assert before == sum(
        b'"doc_ids"' in line for line in kept.splitlines(True) if line[-1:] == b"\n"
    )
    with Journal(path) as journal:
        assert journal.batch("task", [9]) == [document(9)]


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GateError, match="file"), Journal(tmp_path / "file" / "run.jsonl"):
        pass
