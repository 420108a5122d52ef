"""The step of a workflow as the runner starts it: a process, its outputs, what it stores."""

import hashlib
import json
import re
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
from checkpoints import build
from github_repository import (
    NAME,
    Repository,
    merge_group,
    pull_request,
    workflow_run,
)
from github_steps import Runner
from github_stub import LabelEvent, Pull, State, serve

from gate import records
from gate.records import GateRun


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository", ["models/a", "models/b"])


def test_nothing_touched_is_skipped_and_imports_nothing_heavy(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change()
    done = runner.run(
        repository, "merge_group", merge_group(change), {"PYTHONPROFILEIMPORTTIME": "1"}
    )
    assert done.code == 0, done.log
    assert done.outputs["status"] == done.run.status == "skipped"
    assert done.outputs["changed-count"] == "0"
    imported = {line.rpartition("|")[2].strip() for line in done.log.splitlines()}
    assert "gate.github.action" in imported
    assert not imported & {"torch", "transformers", "requests", "huggingface_hub", "scipy", "numpy"}


def test_a_sound_change_passes(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"])
    done = runner.run(repository, "pull_request", pull_request(change))
    assert done.code == 0, done.log
    assert done.outputs | {"report-json-path": ""} == {
        "status": "pass",
        "changed-count": "1",
        "report-json-path": "",
        "retention": "1.0000",
        "waived": "false",
    }
    run = done.run
    assert [report.checkpoint for report in run.reports] == ["models/a"]
    assert (run.repository, run.run_id, run.run_attempt) == (NAME, 42, 2)
    assert (run.head_sha, run.pull_request) == (change.head, 7)
    assert run.run_url == f"https://github.com/{NAME}/actions/runs/42"
    assert run.policy is not None
    assert run.policy.commit == change.base
    assert run.reports[0].command == f"gate check --policy-commit {change.base} -- models/a"
    assert "PASS" in runner.summary.read_text()
    assert repository.git("status", "--porcelain", "--ignored") == ""


def test_outputs_and_report_are_written_before_the_step_fails(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    done = runner.run(repository, "pull_request", pull_request(change))
    assert done.code == 1
    assert done.outputs["status"] == done.run.status == "fail"
    assert len(done.run.reports) == 2
    assert "::error file=models/b/model.safetensors,title=missing-scale::" in done.log


def test_what_a_change_brings_is_never_imported(runner: Runner, repository: Repository) -> None:
    trap = f"open({str(runner.tmp_path / 'sprung')!r}, 'w')\n"
    for name in ("gate/__init__.py", "click.py", "json.py", "sitecustomize.py", "yaml.py"):
        (repository.root / name).parent.mkdir(exist_ok=True)
        (repository.root / name).write_text(trap)
    change = repository.change(sound=["models/a"])
    done = runner.run(repository, "pull_request", pull_request(change), eval_python=sys.executable)
    assert done.outputs["status"] == "pass", done.log
    assert not (runner.tmp_path / "sprung").exists()


def test_detect_names_the_jobs_of_a_matrix(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    done = runner.run(repository, "pull_request", pull_request(change), command="detect")
    assert done.code == 0, done.log
    jobs = json.loads(done.outputs["matrix"])["include"]
    assert [job["checkpoint"] for job in jobs] == ["models/a", "models/b"]
    assert all(re.fullmatch(r"[\w.-]+", job["name"]) for job in jobs)
    assert (done.outputs["status"], done.outputs["changed-count"]) == ("", "2")
    assert done.run.detection is not None
    assert not done.run.reports


def test_detect_without_a_change_is_skipped(runner: Runner, repository: Repository) -> None:
    change = repository.change()
    done = runner.run(repository, "pull_request", pull_request(change), command="detect")
    assert (done.code, done.outputs["status"]) == (0, "skipped")
    assert json.loads(done.outputs["matrix"]) == {"include": []}


def test_paths_limit_what_is_detected(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    done = runner.run(
        repository,
        "pull_request",
        pull_request(change),
        command="detect",
        paths="models/b\nother/**\n",
    )
    assert done.outputs["changed-count"] == "1", done.log


def test_check_judges_the_checkpoint_that_a_matrix_names(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    (repository.root / "models/b/left-over.json").write_text("{}")
    done = runner.run(
        repository, "pull_request", pull_request(change), command="check", checkpoint="models/b",
        lint_only="true",
    )  # fmt: skip
    assert "models/b has files here that the commit does not hold (1)" in done.log
    assert (done.code, done.outputs["status"]) == (1, "fail"), done.log
    assert done.run.reports[0].verdict.stage == "lint"
    assert "changed-count" not in done.outputs


def test_jobs_of_a_matrix_are_published_together(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    payload = pull_request(change)
    stored = runner.tmp_path / "stored"
    for number, inputs in enumerate(
        ({"command": "detect"}, {"command": "check", "checkpoint": "models/a", "lint_only": "true"})
    ):
        done = runner.run(repository, "pull_request", payload, **inputs)
        kept = stored / str(number)
        kept.mkdir(parents=True)
        Path(done.outputs["report-json-path"]).rename(kept / "run.json")
    state = State(repository=NAME, pulls={7: Pull(number=7, head_sha=change.head)})
    with serve(state) as api_url:
        done = runner.run(
            repository, "pull_request", payload, {"GITHUB_API_URL": api_url},
            command="publish", run_json=str(stored), github_token="ghs_stub",
        )  # fmt: skip
    # models/b was detected, and no job judged it.
    assert (done.code, done.outputs["status"]) == (3, "error"), done.log
    assert [failure.checkpoint for failure in done.run.failures] == ["models/b"]
    (comment,) = state.comments
    assert done.outputs["comment-url"].endswith(f"issuecomment-{comment.id}")
    assert [status.state for status in state.statuses] == ["error"]
    assert state.statuses[0].context == "quant-gate/default"
    assert "ghs_stub" not in done.log


def test_publish_without_reports_is_an_error(runner: Runner, repository: Repository) -> None:
    payload = pull_request(repository.change(sound=["models/a"]))
    empty = runner.tmp_path / "empty"
    empty.mkdir()
    done = runner.run(repository, "pull_request", payload, command="publish", run_json=str(empty))
    assert (done.code, done.outputs["status"]) == (3, "error"), done.log


def test_a_label_waives_a_failure(runner: Runner, repository: Repository) -> None:
    change = repository.change(broken=["models/a"])
    payload = pull_request(change, action="labeled") | {"label": {"name": "ship it"}}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state = State(
        repository=NAME,
        pulls={7: Pull(number=7, head_sha=change.head, author="author", labels=["ship it"])},
        label_events=[LabelEvent(issue=7, label="ship it", actor="owner", at=now)],
        permissions={"owner": "write"},
    )
    with serve(state) as api_url:
        done = runner.run(
            repository, "pull_request", payload, {"GITHUB_API_URL": api_url}, lint_only="true",
            github_token="ghs_stub", waiver_label="ship it", comment="never", commit_status="false",
        )  # fmt: skip
    assert (done.code, done.outputs["status"], done.outputs["waived"]) == (0, "fail", "true"), (
        done.log
    )
    assert done.run.waiver is not None
    assert done.run.waiver.by == "owner"


def test_an_error_fails_the_step_unless_the_workflow_wants_otherwise(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"])
    done = runner.run(
        repository, "pull_request", pull_request(change), eval_python="/nowhere/python"
    )
    assert (done.code, done.outputs["status"]) == (3, "error")
    assert "/nowhere/python" in done.run.failures[0].message


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_cancelled_step_ends_all_that_it_started(
    signum: signal.Signals, runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    started = runner.tmp_path / "started"
    # To the first signal nobody listens: neither the one that judges, nor what that has started.
    deaf = "trap '' INT TERM; " if signum == signal.SIGINT else ""
    python = runner.tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\ncase "$*" in *importlib.metadata*) exec "{sys.executable}" "$@";; esac\n'
        f"{deaf}sleep 300 & echo $! $$ >'{started}.new'\n"
        f"mv '{started}.new' '{started}'; wait; sleep 300\n"
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    state = State(repository=NAME)
    with serve(state) as api_url:
        environment = runner.environment(
            repository, "pull_request", pull_request(change),
            eval_python=str(python), github_token="ghs_stub",
        )  # fmt: skip
        process = runner.start(repository, environment | {"GITHUB_API_URL": api_url})
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signum)
        done = runner.finish(process)
    assert [status.state for status in state.statuses] == ["pending", "error"]
    assert (done.code, done.outputs["status"]) == (130, "error"), done.log
    assert [failure.exit_code for failure in done.run.failures] == [130, 130]
    for pid in started.read_text().split():
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_wrong_input_is_named(runner: Runner, repository: Repository) -> None:
    payload = pull_request(repository.change())
    done = runner.run(repository, "pull_request", payload, fail_on="regresion")
    assert (done.code, done.outputs) == (2, {"status": "error"})
    assert "input fail-on is 'regresion': write one of" not in done.log
    assert "input fail-on is 'regresion'" in done.log


def test_a_step_outside_of_github_needs_no_event(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"])
    environment = runner.environment(
        repository, "", {}, base=change.base, head=change.head, lint_only="true"
    )
    for name in [name for name in environment if name.startswith("GITHUB_")]:
        del environment[name]
    process = runner.start(repository, environment)
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 0, log
    (file,) = runner.temp.glob("*/run.json")
    assert records.read(file, GateRun).status == "pass"


def test_the_base_commit_is_fetched_into_a_shallow_clone(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"])
    clone = runner.tmp_path / "clone"
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(clone))
    shallow = Repository.__new__(Repository)
    shallow.root = clone
    done = runner.run(
        shallow, "pull_request", pull_request(change), command="check", checkpoint="models/a"
    )
    assert (done.code, done.outputs["status"]) == (0, "pass"), done.log
    assert done.run.policy is not None
    assert done.run.policy.commit == change.base


def test_a_checkpoint_that_is_not_checked_out_is_an_error(
    runner: Runner, repository: Repository
) -> None:
    payload = pull_request(repository.change())
    done = runner.run(
        repository, "pull_request", payload, command="check", checkpoint="models/gone"
    )
    assert (done.code, done.outputs["status"]) == (3, "error")
    assert "not in the workspace" in done.run.failures[0].message


def test_a_hostile_name_reaches_no_sink_as_a_command(runner: Runner, tmp_path: Path) -> None:
    hostile = "models/a\n::error::planted\n%0A::warning::planted"
    repository = Repository(tmp_path / "repository", [])
    build(repository.root / hostile)
    change = repository.change()
    done = runner.run(repository, "pull_request", pull_request(change), lint_only="true")
    assert done.outputs["status"] == "pass", done.log
    assert done.run.reports[0].checkpoint == hostile
    assert not re.search(r"^::(error|warning)::planted", done.log, re.MULTILINE), done.log


def test_what_was_not_looked_at_is_shown_as_no_success(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"])
    state = State(repository=NAME)
    with serve(state) as api_url:
        done = runner.run(
            repository, "workflow_run", workflow_run(change), {"GITHUB_API_URL": api_url},
            github_token="ghs_stub",
        )  # fmt: skip
    assert (done.code, done.outputs["status"]) == (0, "skipped"), done.log
    assert not state.statuses
    assert not runner.summary.exists()


def test_where_git_lfs_files_come_from_is_not_the_changes_to_say(
    runner: Runner, repository: Repository
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    (repository.root / "models/a/model.safetensors").write_text(pointer)
    (repository.root / ".lfsconfig").write_text("[lfs]\n\turl = https://evil.example.com/\n")
    change = repository.change()
    done = runner.run(repository, "pull_request", pull_request(change))
    assert (done.code, done.outputs["status"]) == (3, "error"), done.log
    assert ".lfsconfig" in done.run.failures[0].message


def test_what_passed_is_stated_for_a_job_that_signs(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"], broken=["models/b"])
    runner.run(repository, "merge_group", merge_group(change), full="true")
    done = runner.run(repository, "merge_group", merge_group(change), full="true", attest="true")
    assert not any(report.reused_from for report in done.run.reports), "judged by this very step"
    assert (done.code, done.outputs["status"]) == (1, "fail"), done.log
    (job,) = json.loads(done.outputs["attestations"])["include"]
    assert job["checkpoint"] == "models/a"
    stated = Path(done.outputs["attestations-path"]) / job["name"]
    value = json.loads((stated / "statement.json").read_text())
    assert value["predicate"] == json.loads((stated / "predicate.json").read_text())
    listed = [line.split("  ", 1) for line in (stated / "files.sha256").read_text().splitlines()]
    assert [(f["name"], f["digest"]["sha256"]) for f in value["subject"]] == [
        (name, digest) for digest, name in listed
    ]
    figures = value["predicate"]["configuration"][0]
    stored = Path(done.outputs["report-json-path"]).read_bytes()
    assert figures["digest"]["sha256"] == hashlib.sha256(stored).hexdigest()


def test_nothing_is_stated_unless_it_is_asked_for(runner: Runner, repository: Repository) -> None:
    change = repository.change(sound=["models/a"])
    done = runner.run(repository, "merge_group", merge_group(change), full="true")
    assert "attestations" not in done.outputs


def test_what_passed_and_cannot_be_stated_is_an_error(
    runner: Runner, repository: Repository
) -> None:
    change = repository.change(sound=["models/a"])
    done = runner.run(
        repository, "merge_group", merge_group(change), lint_only="true", attest="true"
    )
    assert (done.code, done.outputs["status"]) == (3, "error"), done.log
    assert "attestations" not in done.outputs
    assert "measured nothing, so there is nothing to attest" in done.run.failures[0].message
