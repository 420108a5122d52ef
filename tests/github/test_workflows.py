"""The workflows that users copy, run end to end: the real action, a real repository, by act.

GitHub is `github_stub`; the artifact actions and `gh` are stand-ins. What decides is each job's
result, the outputs and what the stub holds afterwards, never act's exit code.
"""

import io
import json
import re
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import act
import pytest
from github_repository import (
    NAME,
    SETTINGS,
    Change,
    Repository,
    dispatch,
    merge_group,
    pull_request,
    schedule,
    tag_push,
    workflow_run,
)
from github_stub import READ_ONLY, Artifact, LabelEvent, Pull, Run, State, serve

from gate import history
from gate.records import GateRun
from gate.store import Store

MODELS = ("models/a", "models/b", "models/c")
PULL_REQUEST = "workflows/pull-request.yml"


class Hub:
    """A repository, its GitHub, and the machine that runs its workflows."""

    def __init__(self, tmp_path: Path, action: Path, cache: Path) -> None:
        self.tmp_path, self.action, self.cache = tmp_path, action, cache
        self.state = State(repository=NAME)
        self.programs = tmp_path / "programs"
        self.programs.mkdir()
        (self.programs / "uv").symlink_to(act.TOOLS / "uv")

    def repository(self, *workflows: str, **options: Any) -> Repository:
        """One whose base commit holds these templates."""
        made = Repository(self.tmp_path / "repository", **options)
        for file in workflows:
            (made.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(act.ROOT / file, made.root / file)
        made.base = made.commit("Judge checkpoints")
        return made

    def program(self, name: str, script: str) -> Path:
        """A program of the runner's, and the file in which it keeps what it was called with."""
        path, calls = self.programs / name, self.tmp_path / f"{name}.calls"
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >>'{calls}'\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return calls

    def run(self, repository: Repository, workflow: str, event: str, payload: Any) -> act.Ran:
        """Run one workflow at an event."""
        # act sets all of the runner's variables but this one.
        started = f"{NAME}/.github/{workflow}@{payload.get('ref', 'refs/heads/main')}"
        with serve(self.state) as api_url:
            return act.run(
                repository.root, workflow, event, repository.write_event(payload),
                action=self.action, work=self.tmp_path / "runner", cache=self.cache,
                environment={"GITHUB_API_URL": api_url, "GITHUB_WORKFLOW_REF": started},
                programs=self.programs,
            )  # fmt: skip

    def pull(self, change: Change, **stated: Any) -> None:
        """Let GitHub know the pull request."""
        known = {"number": 7, "head_sha": change.head, "base_sha": change.base, "author": "author"}
        self.state.pulls[7] = Pull(**(known | stated))

    @property
    def comment(self) -> str:
        """The only comment."""
        (only,) = self.state.comments
        return only.body

    @property
    def settled(self) -> dict[str, str]:
        """Commit to its last status."""
        return {status.sha: status.state for status in self.state.statuses}


@pytest.fixture(scope="session")
def released_action(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return act.action_copy(tmp_path_factory.mktemp("released") / "action")


@pytest.fixture(scope="session")
def runner_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the action keeps its Python environment between jobs."""
    return tmp_path_factory.mktemp("runner-cache")


@pytest.fixture
def hub(tmp_path: Path, released_action: Path, runner_cache: Path) -> Iterator[Hub]:
    yield Hub(tmp_path, released_action, runner_cache)


def test_a_sound_change_passes(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST, checkpoints=MODELS[:2])
    change = repository.merged(repository.change(sound=MODELS[:1]), moved=MODELS[1:2])
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    passed = {"detect": ["success"], "evaluate": ["success"], "verdict": ["success"]}
    assert ran.jobs == passed, ran.log
    assert ran.outputs("detect")["changed-count"] == "1"
    assert ran.outputs("evaluate")["status"] == "pass"
    assert ran.outputs("verdict")["status"] == "pass"
    assert "PASS" in hub.comment and "ifeval" in hub.comment, hub.comment
    assert hub.settled == {change.head: "success"}


def test_a_broken_change_blocks(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST)
    change = repository.change(broken=["quantized_model"])
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    failed = {"detect": ["success"], "evaluate": ["failure"], "verdict": ["failure"]}
    assert ran.jobs == failed, ran.log
    assert ran.outputs("verdict")["status"] == "fail"
    assert "FAIL" in hub.comment and "missing-scale" in hub.comment
    assert hub.settled == {change.head: "failure"}


@pytest.mark.parametrize("event", ["pull_request", "merge_group"])
def test_a_change_of_something_else_is_skipped(hub: Hub, event: str) -> None:
    repository = hub.repository(PULL_REQUEST)
    change = repository.change(files={"README.md": "# Other words\n"})
    hub.pull(change)
    payload = pull_request(change) if event == "pull_request" else merge_group(change)
    ran = hub.run(repository, PULL_REQUEST, event, payload)
    assert ran.jobs == {"detect": ["success"], "verdict": ["success"]}, ran.log
    assert ran.outputs("verdict")["status"] == "skipped"
    assert ran.outputs("detect")["changed-count"] == "0"
    assert hub.settled == {change.head: "success"}


def test_a_change_that_lowers_its_own_limit_is_judged_by_the_old_one(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST, lost=20)
    lowered = {"quant-gate.yaml": SETTINGS.replace("0.95", "0.5")}
    change = repository.change(sound=["quantized_model"], files=lowered)
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    assert ran.jobs["verdict"] == ["failure"], ran.log
    assert ran.outputs("verdict")["status"] == "fail"
    assert "quant-gate.yaml" in hub.comment and "0.95" in hub.comment


def test_the_change_that_brings_the_settings_is_judged_and_not_blocked(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST, lost=20, settled=False)
    change = repository.change(sound=["quantized_model"], files={"quant-gate.yaml": SETTINGS})
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    assert ran.jobs["verdict"] == ["success"], ran.log
    assert ran.outputs("verdict")["status"] == "skipped"
    assert "FAIL" in hub.comment


def test_a_change_that_cannot_be_told_is_no_pass(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST)
    change = repository.change(sound=["quantized_model"])._replace(base="1" * 40)
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    assert ran.jobs == {"detect": ["failure"], "verdict": ["failure"]}, ran.log
    assert ran.outputs("verdict")["status"] == "error"


def test_a_merge_queue_judges_what_will_land(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST)
    change = repository.change(sound=["quantized_model"])
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "merge_group", merge_group(change))
    passed = {"detect": ["success"], "evaluate": ["success"], "verdict": ["success"]}
    assert ran.jobs == passed, ran.log
    assert hub.settled == {change.head: "success"}


def test_three_checkpoints_are_a_matrix_and_one_comment(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST, checkpoints=MODELS)
    # The broken one last: act calls failed whatever run of the same job comes after a failure.
    change = repository.change(sound=MODELS[:2], broken=MODELS[2:])
    hub.pull(change)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change))
    assert ran.jobs == {
        "detect": ["success"],
        "evaluate": ["failure", "success", "success"],
        "verdict": ["failure"],
    }, ran.log
    found = json.loads(ran.outputs("detect")["matrix"])["include"]
    assert [entry["checkpoint"] for entry in found] == list(MODELS)
    assert all(model in hub.comment for model in MODELS)
    assert hub.settled == {change.head: "failure"}


@pytest.mark.parametrize(("kind", "verdict"), [("sound", "success"), ("broken", "failure")])
def test_a_reusable_workflow_holds_its_caller(hub: Hub, kind: str, verdict: str) -> None:
    called, calling = ".github/workflows/gate.yml", ".github/workflows/call.yml"
    repository = hub.repository(called)
    (repository.root / calling).write_text(CALLER)
    repository.base = repository.commit("Call the gate")
    change = repository.change(**{kind: ["quantized_model"]})
    hub.pull(change)
    ran = hub.run(repository, calling, "pull_request", pull_request(change))
    results = {"detect": ["success"], "evaluate": [verdict], "verdict": [verdict]}
    if kind == "sound":
        results["release"] = ["success"]
        assert ran.outputs("release")["heard"] == "pass"
    assert ran.jobs == results, ran.log
    assert hub.settled == {change.head: verdict}


CALLER = """
name: call
on: [pull_request, push]
jobs:
  gate:
    uses: ./.github/workflows/gate.yml
    with:
      eval-python: ${{ vars.QUANT_GATE_EVAL_PYTHON }}
  release:
    needs: gate
    runs-on: ubuntu-latest
    steps:
      - env:
          STATUS: ${{ needs.gate.outputs.status }}
        run: echo "heard=$STATUS" >>"$GITHUB_OUTPUT"
"""

SINGLE = """
name: single
on: [pull_request]
jobs:
  gate:
    runs-on: [self-hosted, linux, gpu]
    steps:
      - uses: actions/checkout@v7
      - id: gate
        uses: org/quant-gate@v1
        with:
          eval-python: ${{ vars.QUANT_GATE_EVAL_PYTHON }}
"""


@pytest.mark.parametrize(("kind", "verdict"), [("sound", "pass"), ("broken", "fail")])
def test_a_fork_that_may_not_write_keeps_its_verdict(hub: Hub, kind: str, verdict: str) -> None:
    repository = hub.repository()
    (repository.root / "single.yml").write_text(SINGLE)
    change = repository.change(**{kind: ["quantized_model"]})
    hub.pull(change, head_repository="stranger/models")
    hub.state.granted = dict(READ_ONLY)
    ran = hub.run(repository, "single.yml", "pull_request", pull_request(change, fork=True))
    assert ran.jobs == {"gate": ["success" if verdict == "pass" else "failure"]}, ran.log
    assert ran.outputs("gate")["status"] == verdict
    assert hub.state.comments == []
    summary, *_ = [line["msg"] for line in ran.lines if line.get("command") == "summary"]
    assert verdict.upper() in summary and "quantized_model" in summary
    assert "pull-requests: write" in ran.log


def test_a_fork_reaches_no_self_hosted_runner(hub: Hub) -> None:
    repository = hub.repository(PULL_REQUEST)
    change = repository.change(sound=["quantized_model"])
    hub.state.granted = dict(READ_ONLY)
    ran = hub.run(repository, PULL_REQUEST, "pull_request", pull_request(change, fork=True))
    assert ran.jobs == {"detect": ["success"], "verdict": ["failure"]}, ran.log
    assert "push its branch to this repository" in ran.log, ran.log


def test_a_fork_is_judged_without_rights_and_published_with_them(hub: Hub) -> None:
    first, second = "workflows/fork-evaluate.yml", "workflows/fork-publish.yml"
    repository = hub.repository(first, second)
    change = repository.change(broken=["quantized_model"])
    hub.pull(change, head_repository="stranger/models")
    hub.state.granted = dict(READ_ONLY)
    judged = hub.run(repository, first, "pull_request", pull_request(change, fork=True))
    assert judged.jobs == {"evaluate": ["failure"]}, judged.log
    assert hub.state.comments == []

    stored = hub.tmp_path / "runner" / "artifacts" / "quant-gate-fork"
    assert GateRun.model_validate_json((stored / "run.json").read_bytes()).status == "fail"
    hub.state.granted = State().granted
    hub.state.runs[99] = Run(id=99, head_sha=change.head, head_repository="stranger/models")
    hub.state.artifacts.append(
        Artifact(id=5, run_id=99, name="quant-gate-fork", content=zipped(stored))
    )
    told = hub.run(repository, second, "workflow_run", workflow_run(change))
    assert told.jobs == {"publish": ["success"]}, told.log
    assert "FAIL" in hub.comment and "missing-scale" in hub.comment


def zipped(directory: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in directory.iterdir():
            archive.write(path, path.name)
    return buffer.getvalue()


RELEASING = ("gate", "sign", "verify", "release")
SIGN = Path(__file__).parent / "sign_statement.py"
ROOTS = 'if [ "$1" = attestation ]; then cat "$RUNNER_TEMP/authority/trusted_root.json"; fi'


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
def test_a_release_comes_after_the_verdict(hub: Hub, event: str) -> None:
    workflow = "workflows/release.yml"
    repository = hub.repository(workflow)
    change = repository.change(sound=["quantized_model"])
    repository.git("tag", "v1.0.0")
    calls = hub.program("gh", ROOTS)
    hub.program("sign-statement", f'exec {sys.executable} {SIGN} "$@"')
    payload = tag_push(change) if event == "push" else dispatch("refs/tags/v1.0.0")
    ran = hub.run(repository, workflow, event, payload)
    assert ran.jobs == {job: ["success"] for job in RELEASING}, ran.log
    assert "VERIFIED  quantized_model" in ran.log and "Signed by" in ran.log
    asked, released = calls.read_text().splitlines()
    assert asked == "attestation trusted-root"
    assert released.startswith("release create v1.0.0 --verify-tag --generate-notes /")
    assert re.search(r"/quantized_model-\w+\.sigstore\.json$", released)


def test_the_gate_of_a_release_is_one_call(hub: Hub) -> None:
    called, calling = ".github/workflows/release.yml", ".github/workflows/call.yml"
    repository = hub.repository(called)
    (repository.root / calling).write_text(CALLER.replace("gate.yml", "release.yml"))
    repository.base = repository.commit("Call the gate of a release")
    change = repository.change(sound=["quantized_model"])
    repository.git("tag", "v1.0.0")
    hub.program("gh", ROOTS)
    signer = "org/quant-gate/.github/workflows/release.yml@refs/tags/v1"
    script = f'export GITHUB_WORKFLOW_REF={signer}\nexec {sys.executable} {SIGN} "$@"'
    hub.program("sign-statement", script)
    ran = hub.run(repository, calling, "push", tag_push(change))
    assert ran.jobs == {job: ["success"] for job in RELEASING}, ran.log
    assert ran.outputs("release")["heard"] == "pass"
    assert "Signed by org/quant-gate/.github/workflows/release.yml in acme/models" in ran.log


def test_other_bytes_than_the_signed_are_never_released(hub: Hub) -> None:
    workflow = "workflows/release.yml"
    repository = hub.repository(workflow)
    change = repository.change(sound=["quantized_model"])
    repository.git("tag", "v1.0.0")
    calls = hub.program("gh", ROOTS)
    changing = f"printf ' ' >>'{repository.root}/quantized_model/config.json'"
    hub.program("sign-statement", f'{changing}\nexec {sys.executable} {SIGN} "$@"')
    ran = hub.run(repository, workflow, "push", tag_push(change))
    passed, failed = ["success"], ["failure"]
    assert ran.jobs == {"gate": passed, "sign": passed, "verify": failed}, ran.log
    assert "config.json changed" in ran.log
    assert calls.read_text() == "attestation trusted-root\n"


def test_a_broken_checkpoint_is_never_released(hub: Hub) -> None:
    workflow = "workflows/release.yml"
    repository = hub.repository(workflow, checkpoints=MODELS[:2])
    change = repository.change(sound=MODELS[:1], broken=MODELS[1:2])
    repository.git("tag", "v1.0.0")
    # Under the next tag it is still there, and only the other one is new.
    repository.git("rm", "--quiet", f"{MODELS[0]}/generation_config.json")
    change = Change(change.base, repository.commit("Another"))
    repository.git("tag", "v1.1.0")
    calls = hub.program("gh", "exit 0")
    ran = hub.run(repository, workflow, "push", tag_push(change, "v1.1.0"))
    assert ran.jobs == {"gate": ["failure"]}, ran.log
    assert ran.outputs("gate")["status"] == "fail"
    assert not calls.exists()


def test_a_label_lets_a_failure_pass_and_not_a_release(hub: Hub) -> None:
    called, calling = ".github/workflows/gate.yml", ".github/workflows/call.yml"
    repository = hub.repository(called)
    waiving = CALLER.replace("    with:\n", "    with:\n      waiver-label: waived\n")
    (repository.root / calling).write_text(waiving)
    repository.base = repository.commit("Call the gate")
    change = repository.change(broken=["quantized_model"])
    hub.pull(change, labels=["waived"])
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    hub.state.label_events.append(LabelEvent(issue=7, label="waived", actor="boss", at=now))
    hub.state.permissions["boss"] = "write"
    payload = pull_request(change, action="labeled") | {"label": {"name": "waived"}}
    ran = hub.run(repository, calling, "pull_request", payload)
    assert ran.jobs["evaluate"] == ["failure"] and ran.jobs["verdict"] == ["success"], ran.log
    assert ran.outputs("verdict")["status"] == "fail"
    assert ran.outputs("verdict")["waived"] == "true"
    assert hub.settled == {change.head: "success"} and "boss" in hub.comment


def test_a_nightly_run_judges_everything(hub: Hub) -> None:
    workflow = "workflows/nightly.yml"
    repository = hub.repository(workflow, checkpoints=MODELS[:2])
    settings, store = stored_in(hub.tmp_path / "store")
    repository.change(sound=MODELS[:2], files=settings)
    ran = hub.run(repository, workflow, "schedule", schedule())
    assert ran.jobs == {"gate": ["success"]}, ran.log
    stored = hub.tmp_path / "runner" / "artifacts" / "quant-gate-nightly" / "run.json"
    run = GateRun.model_validate_json(stored.read_bytes())
    assert sorted(report.checkpoint for report in run.reports) == list(MODELS[:2])
    kept = history.entries(store)
    assert sorted(entry.model for entry in kept) == list(MODELS[:2])
    assert {(entry.facts["event"], entry.facts["repository"]) for entry in kept} == {
        ("schedule", NAME)
    }


def stored_in(directory: Path) -> tuple[dict[str, str], Store]:
    """Settings that name a store, and the store."""
    return {"quant-gate.yaml": f"{SETTINGS}store: {directory}\n"}, Store(str(directory))


def test_a_baseline_goes_to_the_store_that_the_settings_name(hub: Hub) -> None:
    workflow = "workflows/baseline-refresh.yml"
    repository = hub.repository(workflow)
    settings, store = stored_in(hub.tmp_path / "store")
    repository.change(sound=["quantized_model"], files=settings)
    payload = dispatch(reference="quantized_model", name="model-v2")
    ran = hub.run(repository, workflow, "workflow_dispatch", payload)
    assert ran.jobs["measure"] == ["success"] and "success" not in ran.jobs.get("propose", ())
    assert [entry.facts["measured"] for entry in store.entries("baseline")] == ["ifeval"]


def test_a_baseline_is_measured_and_proposed(hub: Hub) -> None:
    workflow = "workflows/baseline-refresh.yml"
    repository = hub.repository(workflow)
    repository.change(sound=["quantized_model"])
    remote = hub.tmp_path / "remote" / f"{NAME}.git"
    repository.git("clone", "--quiet", "--bare", ".", str(remote))
    repository.git("config", f"url.{remote.parent.parent}/.insteadOf", "https://github.com/")
    calls = hub.program("gh", "exit 0")
    payload = dispatch(reference="quantized_model", name="model-v2")
    ran = hub.run(repository, workflow, "workflow_dispatch", payload)
    assert ran.jobs == {"measure": ["success"], "propose": ["success"]}, ran.log
    pushed = f"--git-dir={remote}"
    stored = repository.git(pushed, "show", "quant-gate/baseline-1-1:baselines/model-v2.json")
    assert json.loads(stored)["setups"]
    assert "pr create --head quant-gate/baseline-1-1" in calls.read_text()
