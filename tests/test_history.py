"""Reports that are kept in a store, through the functions and the command."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import s3, store  # noqa: F401 - fixtures: a store of each kind

from gate import history, records
from gate.cli import cli
from gate.errors import GateError, StoreError
from gate.records import Entry, Report
from gate.reports import stored
from gate.store import Store

FIXTURE = Path(__file__).parent / "fixtures" / "report-v1.json"


@pytest.fixture(autouse=True)
def outside_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_EVENT_NAME", raising=False)


def a_report(**changes: object) -> Report:
    """A report of an older version, with these fields changed."""
    return records.read(FIXTURE, Report).model_copy(update=changes)


def test_a_report_is_found_again(store: Store) -> None:  # noqa: F811
    assert history.entries(store) == ()
    made = a_report(date="2026-11-01T00:00:00Z")
    entry = history.add(store, made)
    later = history.add(store, a_report(date="2026-11-02T00:00:00Z"))
    other = history.add(store, a_report(checkpoint="models/other"))
    assert history.entries(store, "models/nvfp4") == (later, entry)
    assert history.entries(store) == (other, later, entry)
    assert history.report(store, entry) == made
    assert history.named(store, "models/nvfp4") == later
    assert history.named(store, entry.short) == entry


def test_the_same_report_twice_is_one(store: Store) -> None:  # noqa: F811
    assert history.add(store, a_report()) == history.add(store, a_report())
    assert len(history.entries(store)) == 1


def test_revisions_of_one_checkpoint_and_spellings_of_its_path_are_one_history(
    tmp_path: Path,
) -> None:
    kept = Store(str(tmp_path))
    for name, revision in (("acme/m", "1a"), ("acme/m@2b", "2b"), ("./models//nvfp4/", None)):
        history.add(kept, a_report(checkpoint=name, revision=revision))
    history.add(kept, a_report(files=("model-Q4_K_M.gguf",)))
    assert len(history.entries(kept, "acme/m")) == 2
    assert len(history.entries(kept, "models/nvfp4")) == 1
    assert len(history.entries(kept, "models/nvfp4/model-Q4_K_M.gguf")) == 1


def test_the_command_adds_lists_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert cli.main(["history", *arguments, "--store", "kept"], standalone_mode=False) == 0
        return capsys.readouterr().out

    run("add", str(FIXTURE), str(FIXTURE))
    listed = run("list", "models/nvfp4")
    assert listed.count("FAIL") == 1 and "2026-11-21 11:00" in listed
    assert "models/nvfp4" in run("show", "models/nvfp4")
    assert "holds no such report" in run("list", "models/none")
    with pytest.raises(StoreError, match="holds no report models/none"):
        run("show", "models/none")


def entry(day: int, outcome: str = "fail", weights: str = "", **facts: str) -> Entry:
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return Entry(
        kind="report", key="a" * 64, content=f"{day:064x}", model="m", date=made.isoformat(),
        facts={"outcome": outcome, "weights": weights or str(day)} | facts,
    )  # fmt: skip


def left(days: list[Entry], keep: int, before: str = "2026-01-01") -> list[int]:
    """The days of the entries that stay."""
    limit = datetime.fromisoformat(before).replace(tzinfo=UTC)
    gone = [e.content for e in history.superseded(list(reversed(days)), keep, limit)]
    return [int(e.content, 16) for e in days if e.content not in gone]


def test_what_passed_last_outlives_what_failed_since() -> None:
    days = [entry(1, "pass"), entry(2, "pass"), entry(3, "pass"), *map(entry, range(4, 30))]
    assert left(days, keep=2) == [2, 3, 28, 29]
    assert left(days, keep=99, before="2026-01-29") == [2, 3, 28, 29]


def test_the_same_weights_again_do_not_push_out_what_passed_before_them() -> None:
    days = [entry(1, "pass", "old"), *(entry(day, "pass", "new") for day in range(2, 9))]
    assert left(days, keep=1) == [1, 8]


def test_a_proposed_pass_does_not_push_out_one_of_the_default_branch() -> None:
    landed = [entry(day, "pass", branch="main") for day in (1, 2)]
    proposed = [entry(day, "pass", branch="change") for day in (3, 4, 5)]
    assert left([*landed, *proposed], keep=1) == [1, 2, 4, 5]


@given(st.dictionaries(st.sampled_from(["outcome", "branch", "run", "weights"]), st.text()))
def test_what_an_entry_says_commands_no_terminal(facts: dict[str, str]) -> None:
    hostile = entry(1).model_copy(update={"facts": facts, "model": facts.get("branch", "m")})
    shown = stored.history([hostile], "kept", width=1000)
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert len(shown.splitlines()) <= 5
    list(history.superseded([hostile], 1, datetime.now(UTC)))


@given(st.binary() | st.just(b'{"schema_version": 1}'))
def test_a_document_that_is_no_report_is_an_error_that_says_so(content: bytes) -> None:
    kept = Store("memory://history-of-anything")
    with pytest.raises(GateError):
        history.report(kept, kept.put(entry(1), content))


def test_prune_forgets_old_reports_and_shared_verdicts(tmp_path: Path) -> None:
    kept = Store(str(tmp_path))
    old = history.add(kept, a_report(date="2020-01-01T00:00:00Z"))
    new = history.add(kept, a_report(date=records.now()))
    kept.put(old.model_copy(update={"kind": "candidate"}), b"{}")
    assert history.prune(kept, 100, timedelta(days=365)) == 2
    assert history.entries(kept) == (new,) and kept.entries("candidate") == ()
