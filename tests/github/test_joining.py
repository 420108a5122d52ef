"""The parts of a matrix become one run, and what no job judged is not passed over."""

from pathlib import Path

import pytest
from github_runs import BASE, FAILED, HEAD, PASSED, WAIVER, failure, report, run

from gate.errors import PublishError
from gate.github import joining
from gate.records import ChangedCheckpoint, Detection, GateRun, Policy

POLICY = Policy(commit=BASE, digest="0" * 64)


def detected(*paths: str) -> GateRun:
    """What the job that only detects stores."""
    changed = (
        *(ChangedCheckpoint(path=path, change="modified") for path in paths),
        ChangedCheckpoint(path="models/old", change="removed"),
    )
    found = Detection(base=BASE, head=HEAD, source="git", checkpoints=changed)
    return run().model_copy(update={"detection": found})


def test_parts_are_joined() -> None:
    done = joining.join([detected("a", "b"), run(report("a")), run(report("b", lost=40))])
    assert done.status == "fail" and done.key == "default" and done.run_id == 100
    assert [each.checkpoint for each in done.reports] == ["a", "b"]
    assert done.detection is not None
    assert [each.path for each in done.detection.present] == ["a", "b"]


def test_a_job_that_left_no_report_is_no_pass() -> None:
    done = joining.join([detected("a", "./b", "c"), run(report("a")), run(failures=[failure("c")])])
    assert done.status == "error"
    assert {each.checkpoint: each.message for each in done.failures} == {
        "c": "out of memory",
        "./b": "the job that was to judge it left no report",
    }


def test_what_could_not_even_be_asked_for_is_no_pass() -> None:
    found = detected("a", "c").detection
    assert found is not None
    odd = found.model_copy(update={"failures": (failure("b"),)})
    parts = [run().model_copy(update={"detection": odd}), run(report("a"))]
    assert [each.checkpoint for each in joining.join(parts).failures] == ["c", "b"]


def test_a_file_stands_for_the_checkpoint_that_was_limited_to_it() -> None:
    judged = report("gguf").model_copy(update={"files": ("m-1-of-2.gguf", "m-2-of-2.gguf")})
    done = run(judged, detection=None)
    assert joining.join([detected("gguf/m-1-of-2.gguf"), done]).status == "pass"
    assert joining.join([detected("gguf/m-2-of-2.gguf"), done]).status == "pass"
    assert joining.join([detected("gguf/other.gguf"), done]).status == "error"
    assert joining.join([detected("gguf"), done]).status == "error"


@pytest.mark.parametrize("first", [0, 1])
def test_of_a_repeated_job_the_newer_attempt_counts(first: int) -> None:
    parts = [run(failures=[failure("a")]), run(report("a"), run_attempt=2)]
    done = joining.join([parts[first], parts[1 - first]])
    assert (done.status, done.run_attempt) == ("pass", 2)


def test_of_one_attempt_a_failure_outweighs_a_report() -> None:
    assert joining.join([run(report("a"), failures=[failure("a")])]).status == "error"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_sha": "c" * 40}, "head_sha"),
        ({"key": "other"}, "key is default and other"),
        ({"pull_request": 8}, "pull_request is 7 and 8"),
        ({"run_id": 101}, "run_id"),
        ({"repository": "octo-org/other"}, "repository"),
        ({"policy": POLICY.model_copy(update={"digest": "1" * 64})}, "settings"),
        ({"detection": Detection(base="c" * 40, head=HEAD, source="git")}, "base commits"),
    ],
)
def test_parts_of_different_runs_are_refused(change: dict[str, object], said: str) -> None:
    parts = [PASSED.model_copy(update={"policy": POLICY}), FAILED.model_copy(update=change)]
    with pytest.raises(PublishError, match=said):
        joining.join(parts)


def test_a_waiver_counts_where_every_failed_part_has_it() -> None:
    waived = run(report("a", lost=40), waiver=WAIVER)
    assert joining.join([waived, run(report("b"))]).waiver == WAIVER
    assert joining.join([waived, run(report("b", lost=40))]).waiver is None


def test_stored_runs_are_found_below_directories(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(run(report(name)).model_dump_json())
        (tmp_path / name / "report.json").write_text("not one of them")
    assert len(joining.load([tmp_path]).reports) == 2
    assert len(joining.load([tmp_path / "a" / "run.json"]).reports) == 1


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema_version": 1}'])
def test_what_is_no_stored_run_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(PublishError):
        joining.load([tmp_path])
