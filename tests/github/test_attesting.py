"""Which checkpoints of a run are stated for a job that signs, and what cannot be."""

from pathlib import Path
from typing import Any

import pytest
from github_runs import WAIVER, failure, report, run

from gate import digests, records
from gate.github import attesting
from gate.github.attesting import Attested
from gate.records import GateRun, Policy

NAME = "models/fp8"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A work tree with one checkpoint of one file."""
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "config.json").write_text("{}")
    return tmp_path


def judged(root: Path, name: str = NAME, **changes: Any) -> Any:
    """The report about a checkpoint's bytes as they are."""
    files = digests.of(root / NAME, digests.shipped(root / NAME))
    return report(name, **changes).model_copy(update={"digests": files})


def attest(root: Path, stated: GateRun) -> Attested:
    stored = root / "run.json"
    records.write(stored, stated)
    return attesting.attest(stated, stored, root, root / "attestations")


def test_what_passed_is_stated(root: Path) -> None:
    found = attest(root, run(judged(root)))
    (job,) = found.matrix["include"]
    assert (job["checkpoint"], found.failures) == (NAME, ())
    stated = {path.name for path in (root / "attestations" / job["name"]).iterdir()}
    assert stated == {"statement.json", "predicate.json", "files.sha256"}


@pytest.mark.parametrize(
    "changes",
    [
        {"waiver": WAIVER},
        {"policy": Policy(commit=None, digest="d", advisory=True)},
        {"failures": (failure(NAME),)},
    ],
    ids=["waived", "advisory", "no-verdict"],
)
def test_what_did_not_simply_pass_is_not_stated(root: Path, changes: dict[str, Any]) -> None:
    found = attest(root, run(judged(root)).model_copy(update=changes))
    assert found == Attested({"include": []}, ())
    assert not (root / "attestations").exists()


def test_one_model_that_fails_keeps_its_whole_directory_from_being_stated(root: Path) -> None:
    found = attest(root, run(judged(root), judged(root, lost=40)))
    assert found == Attested({"include": []}, ())


def test_a_checkpoint_on_the_hub_is_left_to_who_publishes_it(root: Path) -> None:
    found = attest(root, run(judged(root), judged(root, name="acme/model@1a2b3c4")))
    assert [job["checkpoint"] for job in found.matrix["include"]] == [NAME]


@pytest.mark.parametrize("what", ["changed", "unmeasured", "many"])
def test_what_passed_and_cannot_be_stated_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stated = judged(root)
    if what == "changed":
        (root / NAME / "config.json").write_text("{ }")
    elif what == "unmeasured":
        stated = report(NAME)
    else:
        monkeypatch.setattr(attesting, "MOST_SUBJECTS", 0)
    (told,) = attest(root, run(stated)).failures
    why = {"changed": "other bytes", "unmeasured": "measured nothing", "many": "has 1 files"}
    assert why[what] in told.message and told.exit_code == 3
