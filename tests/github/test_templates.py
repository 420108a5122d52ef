"""What holds for every workflow in the repository, read from the files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = sorted((ROOT / "workflows").glob("*.yml"))
WORKFLOWS = [*TEMPLATES, *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
OWN = "org/quant-gate@"
EVERY = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
FORKS = (
    "(github.event_name != 'pull_request' || "
    "github.event.pull_request.head.repo.full_name == github.repository)"
)


def load(path: Path) -> dict[Any, Any]:
    """A workflow; YAML 1.1 reads the key `on` as True."""
    value: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return value


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in load(path)["jobs"].values():
        yield from job.get("steps", ())


@EVERY
def test_the_action_has_every_input_and_output_that_is_used(path: Path) -> None:
    action = load(ROOT / "action.yml")
    for job in load(path)["jobs"].values():
        own = [step for step in job.get("steps", ()) if step.get("uses", "").startswith(OWN)]
        given = {name for step in own for name in step.get("with", {})}
        assert given <= action["inputs"].keys()
        named = {step["id"] for step in own if "id" in step}
        read = re.findall(r"steps\.(\w+)\.outputs\.([\w-]+)", yaml.safe_dump(job))
        assert {output for step, output in read if step in named} <= action["outputs"].keys()


@EVERY
def test_an_action_of_others_is_pinned_by_its_commit_and_says_its_version(path: Path) -> None:
    for name in re.findall(r"^[ -]+uses: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        pinned = re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", name)
        assert pinned or name.startswith(OWN), name


@EVERY
def test_every_job_ends_in_time_and_has_only_the_rights_that_it_names(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {}
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job and job["permissions"], name


@EVERY
def test_a_checkout_leaves_no_credentials_behind(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@EVERY
def test_a_fork_is_never_given_a_machine_of_ones_own(path: Path) -> None:
    workflow = load(path)
    for name, job in workflow["jobs"].items():
        own = re.search("self-hosted|inputs.runner", str(job["runs-on"]))
        if own and {"pull_request", "workflow_call"} & set(workflow[True]):
            assert guarded(workflow["jobs"], name)


def guarded(jobs: dict[str, Any], name: str) -> bool:
    """Whether a job never runs for a fork: by its condition, or by that of one it waits for."""
    condition = " ".join(jobs[name].get("if", "").split())
    if FORKS in condition or condition == "startsWith(github.ref, 'refs/tags/')":
        return True
    needed = jobs[name].get("needs", [])
    needed = [needed] if isinstance(needed, str) else needed
    return "always()" not in condition and any(guarded(jobs, each) for each in needed)


def test_what_runs_with_rights_after_a_fork_runs_nothing_of_the_forks() -> None:
    path = ROOT / "workflows" / "fork-publish.yml"
    workflow = load(path)
    assert "workflow_run" in workflow[True]
    assert [set(step) for step in steps(path)] == [{"name", "uses", "with"}]
    assert all(step["uses"].startswith(OWN) for step in steps(path))
    listened = workflow[True]["workflow_run"]["workflows"]
    assert listened == [load(ROOT / "workflows" / "fork-evaluate.yml")["name"]]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_only_the_second_half_of_the_fork_pattern_has_rights_at_a_foreign_event(
    path: Path,
) -> None:
    events = load(path)[True]
    assert "pull_request_target" not in events
    assert ("workflow_run" in events) == (path.name == "fork-publish.yml")


def test_a_release_starts_before_it_exists_and_needs_a_pass() -> None:
    workflow = load(ROOT / "workflows" / "release.yml")
    assert set(workflow[True]) == {"push", "workflow_dispatch"}
    jobs = workflow["jobs"]
    assert jobs["sign"]["needs"] == "gate"
    assert jobs["sign"]["if"].startswith("needs.gate.outputs.status == 'pass' && ")
    assert jobs["verify"]["needs"] == ["gate", "sign"]
    assert jobs["release"]["needs"] == "verify"
    # Without a condition of its own, a job runs only after all that it needs.
    assert "if" not in jobs["verify"] and "if" not in jobs["release"]


@EVERY
def test_who_may_sign_runs_nothing_of_the_repository(path: Path) -> None:
    signing = [j for j in load(path)["jobs"].values() if "id-token" in str(j["permissions"])]
    assert len(signing) == (path.name == "release.yml")
    for job in signing:
        used = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
        assert set(used) <= {
            "", "actions/attest", "actions/download-artifact", "actions/upload-artifact"
        }  # fmt: skip
        assert job["runs-on"] == "ubuntu-latest"
        assert set(job["permissions"]) == {"id-token", "attestations"}


@pytest.mark.parametrize(
    ("template", "reusable", "callers"),
    [("pull-request.yml", "gate.yml", set()), ("release.yml", "release.yml", {"release"})],
)
def test_the_template_and_the_reusable_workflow_are_the_same_but_for_inputs(
    template: str, reusable: str, callers: set[str]
) -> None:
    copied = shape(ROOT / "workflows" / template)
    called = shape(ROOT / ".github" / "workflows" / reusable)
    assert {name: job for name, job in copied.items() if name not in callers} == called


def shape(path: Path) -> dict[str, Any]:
    """Jobs without what a reusable workflow's caller may choose."""
    chosen = {"runs-on", "timeout-minutes", "strategy", "outputs", "steps"}
    return {
        name: {key: value for key, value in job.items() if key not in chosen}
        | {"steps": [(step["name"], step.get("uses"), step.get("if")) for step in job["steps"]]}
        for name, job in load(path)["jobs"].items()
    }


def test_only_the_default_branch_records_a_baseline() -> None:
    jobs = load(ROOT / "workflows" / "baseline-refresh.yml")["jobs"]
    branch = "format('refs/heads/{0}', github.event.repository.default_branch)"
    assert jobs["measure"]["if"] == f"github.ref == {branch}"
    assert jobs["propose"]["needs"] == "measure"
