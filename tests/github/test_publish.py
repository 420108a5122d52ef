"""A finished run reaches GitHub everywhere that it can, and no failure there changes a verdict."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from github_runs import (
    BASE,
    EMPTY,
    FAILED,
    FINDING,
    HEAD,
    PASSED,
    REPOSITORY,
    WAIVER,
    failure,
    report,
    run,
)
from github_stub import READ_ONLY, Fault, Pull, State, serve

from gate.github import publish, status, summary
from gate.github.api import Client
from gate.github.publish import Options, Published
from gate.records import GateRun, Policy

ADVISORY = Policy(commit=BASE, digest="0" * 64, advisory=True)
HOSTILE = "x\n::error::y %0A `|` @octocat <!-- --> #1 ]( https://evil.invalid"


def deliver(
    done: GateRun, state: State, options: Options | None = None, **environ: str
) -> Published:
    with serve(state) as url:
        client = Client(url, "token", REPOSITORY, budget_s=10, pause_s=0)
        return publish.publish(done, client, options or Options(), environ)


def github(**held: Any) -> State:
    return State(**{"repository": REPOSITORY, "pulls": {7: Pull(number=7)}} | held)


def test_a_verdict_goes_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, page = github(), tmp_path / "summary.md"
    failed = run(report(lost=31, findings=[FINDING]))
    done = deliver(failed, state, GITHUB_STEP_SUMMARY=str(page), GITHUB_ACTIONS="true")
    (comment,), (settled,) = state.comments, state.statuses
    assert done.warnings == () and done.comment_url is not None
    assert "missing-scale" in comment.body
    assert (settled.sha, settled.context, settled.state) == (HEAD, "quant-gate/default", "failure")
    assert settled.target_url == failed.run_url
    assert page.read_text().startswith("## ❌")
    printed = capsys.readouterr().out
    assert "::error file=models/fp8/model.safetensors,title=missing-scale::" in printed


@pytest.mark.parametrize(
    ("done", "state", "description"),
    [
        (PASSED, "success", "PASS: models/fp8: ifeval: may lose 20 net, lost 12"),
        (FAILED, "failure", "FAIL: models/fp8: ifeval: may lose 20 net, lost 31"),
        (run(report("a"), report("b", lost=40)), "failure", "FAIL: 1 of 2 checkpoints"),
        (run(report("a"), report("b")), "success", "PASS: 2 checkpoints"),
        (run(failures=(failure(),)), "error", "No verdict on models/fp8: out of memory"),
        (EMPTY, "success", "No checkpoint touched"),
        (
            run(report(lost=31), policy=ADVISORY),
            "success",
            "Decides nothing yet: the base commit has no quant-gate settings",
        ),
        (
            run(report(lost=31), waiver=WAIVER),
            "success",
            "FAIL, waived by maintainer until 2026-11-24T10:00:00+00:00",
        ),
    ],
)
def test_the_commit_status(done: GateRun, state: str, description: str) -> None:
    settled = status.settled(done)
    assert (settled.state, settled.description) == (state, description)


def test_an_inconclusive_verdict_does_not_let_a_release_through() -> None:
    unsure = report()
    outcome = unsure.verdict.model_copy(update={"outcome": "inconclusive"})
    settled = status.settled(run(unsure.model_copy(update={"verdict": outcome})))
    assert settled.state == "failure" and settled.description.startswith("INCONCLUSIVE: ")


def test_a_waiver_lets_no_missing_verdict_through() -> None:
    assert status.settled(run(failures=(failure(),), waiver=WAIVER)).state == "error"


def test_a_status_is_one_short_line() -> None:
    done = run(failures=(failure(HOSTILE * 20),))
    text = status.settled(done).description
    assert len(text) == 140 and text.endswith("…") and "\n" not in text


@pytest.mark.parametrize("event", ["merge_group", "push"])
def test_without_a_pull_request_to_comment_on_the_commit_status_remains(event: str) -> None:
    state = github()
    done = deliver(
        PASSED.model_copy(
            update={"event": event, "pull_request": 7 if event == "merge_group" else None}
        ),
        state,
    )
    assert (len(state.comments), len(state.statuses)) == (0, 1)
    assert done.warnings == ()


def test_a_workflow_run_that_took_over_no_report_says_nothing(tmp_path: Path) -> None:
    state, page = github(), tmp_path / "summary.md"
    nothing = EMPTY.model_copy(update={"event": "workflow_run", "pull_request": None})
    assert deliver(nothing, state, GITHUB_STEP_SUMMARY=str(page)) == Published(None, (), ())
    assert state.requests == [] and not page.exists()


def test_a_pull_request_that_moved_on_keeps_its_comment() -> None:
    state = github(pulls={7: Pull(number=7, head_sha="c" * 40)})
    done = deliver(FAILED, state)
    assert state.comments == [] and done.comment_url is None and done.warnings == ()
    assert "moved on to ccccccc" in " ".join(done.notes)
    assert state.statuses[0].sha == HEAD


def test_a_forks_token_changes_no_verdict_and_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, page = github(granted=READ_ONLY), tmp_path / "summary.md"
    done = deliver(FAILED, state, GITHUB_STEP_SUMMARY=str(page), GITHUB_ACTIONS="true")
    assert FAILED.status == "fail" and page.stat().st_size > 200
    assert len(done.warnings) == 2
    assert "statuses: write" in done.warnings[0] and "pull-requests: write" in done.warnings[1]
    printed = capsys.readouterr().out
    assert printed.count("::warning title=quant-gate::") == 2
    assert printed.count("::error") == 1


@pytest.mark.parametrize("status_code", [404, 410, 422, 500, 502])
def test_a_refused_comment_stops_nothing_else(status_code: int, tmp_path: Path) -> None:
    fault = Fault(
        path="/issues/", times=-1, status=status_code, body={"message": "Validation Failed"}
    )
    state, page = github(faults=[fault]), tmp_path / "summary.md"
    done = deliver(PASSED, state, GITHUB_STEP_SUMMARY=str(page))
    assert len(done.warnings) == 1 and str(status_code) in done.warnings[0]
    assert state.statuses[0].state == "success" and page.exists()


def test_never_and_no_status_ask_nothing() -> None:
    state = github()
    deliver(FAILED, state, Options(comment="never", commit_status=False))
    assert state.requests == []


def test_without_a_client_the_summary_is_written(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    done = publish.publish(FAILED, None, Options(), {"GITHUB_STEP_SUMMARY": str(page)})
    assert done == Published(None, ("The report was added to the job summary.",), ())


def test_a_missing_summary_is_no_problem() -> None:
    assert publish.publish(PASSED, None, Options(), {}) == Published(None, (), ())


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    place = str(tmp_path / "nowhere" / "summary.md")
    (warning,) = publish.publish(PASSED, None, Options(), {"GITHUB_STEP_SUMMARY": place}).warnings
    assert "No such file" in warning


def test_the_summary_is_appended_and_fits_in_a_mebibyte(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("x" * 500_000 + "\n")
    findings = [FINDING.model_copy(update={"message": "word " * 100 + str(n)}) for n in range(50)]
    many = run(*(report(f"models/{n}", lost=31, findings=findings) for n in range(300)))
    publish.publish(many, None, Options(), {"GITHUB_STEP_SUMMARY": str(page)})
    written = page.read_bytes()
    assert 550_000 < len(written) <= 1024 * 1024
    assert written.startswith(b"x" * 500_000 + b"\n\n## ")


def test_a_full_summary_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("x" * (summary.MOST_BYTES - 100))
    (warning,) = publish.publish(
        PASSED, None, Options(), {"GITHUB_STEP_SUMMARY": str(page)}
    ).warnings
    assert "a step of its own" in warning and page.stat().st_size == summary.MOST_BYTES - 100


def test_annotations_stay_within_what_github_shows(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [FINDING.model_copy(update={"tensor": f"t{n}"}) for n in range(30)]
    done = run(report("a", lost=31, findings=findings), failures=(failure("b"),))
    publish.publish(done, None, Options(), {"GITHUB_ACTIONS": "true"})
    lines = capsys.readouterr().out.splitlines()
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == 10 and "title=No verdict%3A b::out of memory%0AFix" in errors[0]


def test_what_strangers_wrote_is_no_workflow_command(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = FINDING.model_copy(update={"message": HOSTILE, "file": HOSTILE, "rule": HOSTILE})
    done = run(report(HOSTILE, findings=[hostile]), failures=(failure(HOSTILE),))
    publish.publish(done, None, Options(), {"GITHUB_ACTIONS": "true"})
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith(("::error title=", "::error file=")) for line in lines)
    assert all(line.count("::") >= 2 and "\r" not in line for line in lines)


def test_a_run_begins_with_a_pending_status() -> None:
    state = github()
    with serve(state) as url:
        client = Client(url, "token", REPOSITORY, pause_s=0)
        assert publish.announce(client, HEAD, "default", "https://github.invalid/run") is None
    (begun,) = state.statuses
    assert (begun.state, begun.sha, begun.context) == ("pending", HEAD, "quant-gate/default")


def test_a_refused_pending_status_is_a_warning() -> None:
    with serve(github(granted=READ_ONLY)) as url:
        warning = publish.announce(Client(url, "token", REPOSITORY), HEAD, "default", None)
    assert warning is not None and "statuses: write" in warning


def gate(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gate", "publish", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environ},
    )


def test_the_command_joins_and_delivers(tmp_path: Path) -> None:
    for name, lost in (("a", 3), ("b", 31)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(run(report(name, lost=lost)).model_dump_json())
    state = github()
    with serve(state) as url:
        done = gate(str(tmp_path), GITHUB_TOKEN="token", GITHUB_API_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Commit status quant-gate/default: failure.",
        "The comment was created.",
    ]
    assert "1 of 2 checkpoints" in state.comments[0].body


def test_the_command_says_what_could_not_be_delivered(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(PASSED.model_dump_json())
    with serve(github(granted=READ_ONLY)) as url:
        done = gate(str(file), GITHUB_TOKEN="secret-token", GITHUB_API_URL=url)
    assert done.returncode == 3 and "statuses: write" in done.stderr
    assert "secret-token" not in done.stdout + done.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(FAILED.model_dump_json())
    done = gate(str(file), "--dry-run", "--key", "other")
    assert done.returncode == 0
    assert done.stdout.startswith("quant-gate/other: failure: FAIL: models/fp8")
    assert "<!-- quant-gate:v1 key=other " in done.stdout


def test_the_command_begins_a_run(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    pull = {"number": 7, "head": {"sha": HEAD}, "base": {"sha": BASE}}
    payload = {"pull_request": pull, "repository": {"full_name": REPOSITORY}}
    event.write_text(json.dumps(payload))
    state = github()
    with serve(state) as url:
        done = gate(
            "--pending",
            GITHUB_TOKEN="token",
            GITHUB_API_URL=url,
            GITHUB_EVENT_NAME="pull_request",
            GITHUB_EVENT_PATH=str(event),
            GITHUB_SERVER_URL="https://github.invalid",
            GITHUB_RUN_ID="12",
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert state.statuses[0].target_url == f"https://github.invalid/{REPOSITORY}/actions/runs/12"


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["--pending", "--workflow-run"], 2), (["absent.json"], 3)]
)
def test_what_cannot_be_published_is_said(arguments: list[str], code: int) -> None:
    done = gate(*arguments)
    assert done.returncode == code and "Traceback" not in done.stderr
