"""What started a run, read from GitHub's own example payloads."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import event
from gate.commits import Change
from gate.errors import GateError
from gate.event import Event

PAYLOADS = Path(__file__).parent / "fixtures" / "webhooks"
SHA = "a" * 40


def payload(kind: str) -> Any:
    return json.loads((PAYLOADS / f"{kind}.json").read_text())


def read(directory: Path, name: str, content: Any, **environment: str) -> Event:
    """The event of a workflow that was started by this payload."""
    file = directory / "event.json"
    file.write_text(json.dumps(content))
    found = event.read(
        {"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(file), "GITHUB_SHA": SHA} | environment
    )
    assert found is not None
    return found


def test_outside_of_a_workflow() -> None:
    assert event.read({}) is None
    assert event.read({"GITHUB_EVENT_NAME": ""}) is None


@pytest.mark.parametrize("action", ["opened", "synchronize", "labeled"])
@pytest.mark.parametrize("name", ["pull_request", "pull_request_target"])
def test_a_pull_request(tmp_path: Path, name: str, action: str) -> None:
    content = payload(f"pull_request.{action}")
    found = read(tmp_path, name, content)
    request = content["pull_request"]
    assert (found.name, found.action) == (name, action)
    assert found.repository == "Codertocat/Hello-World"
    assert (found.base_sha, found.head_sha) == (request["base"]["sha"], request["head"]["sha"])
    assert found.head_sha != SHA, "GITHUB_SHA is the merge commit"
    assert (found.base_ref, found.head_ref) == ("master", "changes")
    assert (found.pull_request, found.actor, found.fork) == (2, "Codertocat", False)
    assert found.default_branch == "master"
    assert found.label == ("bug" if action == "labeled" else None)
    assert found.labels == tuple(label["name"] for label in request["labels"])
    assert found.change() == Change(found.head_sha, found.base_sha, "merge base")


@pytest.mark.parametrize("head", [{"full_name": "stranger/Hello-World"}, None])
def test_a_pull_request_from_a_fork_or_from_one_that_is_gone(tmp_path: Path, head: Any) -> None:
    content = payload("pull_request.opened")
    content["pull_request"]["head"]["repo"] = head
    assert read(tmp_path, "pull_request", content).fork


def test_a_push_to_a_branch(tmp_path: Path) -> None:
    content = payload("push.branch") | {"before": "b" * 40}
    found = read(tmp_path, "push", content)
    assert (found.head_ref, found.base_sha, found.fork) == ("master", "b" * 40, False)
    assert found.change() == Change(content["after"], "b" * 40, "commit")


def test_a_push_of_a_new_branch(tmp_path: Path) -> None:
    content = payload("push.branch")
    assert set(content["before"]) == {"0"}
    assert read(tmp_path, "push", content).change() == Change(content["after"])
    topic = read(tmp_path, "push", content | {"ref": "refs/heads/topic"})
    assert topic.base_sha is None and topic.head_ref == "topic"
    assert topic.change() == Change(content["after"], "origin/master", "merge base")


def test_a_push_of_a_tag(tmp_path: Path) -> None:
    content = payload("push.tag")
    found = read(tmp_path, "push", content)
    assert found.head_ref == "refs/tags/simple-tag"
    assert found.change() == Change(content["after"])


def test_a_deleted_branch(tmp_path: Path) -> None:
    content = payload("push.branch") | {"after": "0" * 40, "deleted": True}
    assert read(tmp_path, "push", content).change().since == "nothing"


def test_a_merge_group(tmp_path: Path) -> None:
    content = payload("merge_group.checks_requested")
    found = read(tmp_path, "merge_group", content)
    group = content["merge_group"]
    assert (found.base_sha, found.head_sha) == (group["base_sha"], group["head_sha"])
    assert (found.base_ref, found.pull_request, found.fork) == ("main", 104, False)
    assert found.change() == Change(found.head_sha, found.base_sha, "commit")


def test_a_finished_run(tmp_path: Path) -> None:
    content = payload("workflow_run.completed")
    found = read(tmp_path, "workflow_run", content, GITHUB_RUN_ID="5")
    run = content["workflow_run"]
    assert (found.head_sha, found.run_id) == (run["head_sha"], run["id"])
    assert (found.pull_request, found.fork) == (None, False)
    assert found.change().since == "nothing"
    content["workflow_run"]["head_repository"]["full_name"] = "stranger/octo-repo"
    assert read(tmp_path, "workflow_run", content).fork


@pytest.mark.parametrize("kind", ["release.published", "workflow_dispatch"])
def test_what_asks_for_everything(tmp_path: Path, kind: str) -> None:
    name = kind.partition(".")[0]
    found = read(tmp_path, name, payload(kind), GITHUB_RUN_ID="5", GITHUB_ACTOR="someone")
    assert (found.head_sha, found.run_id) == (SHA, 5)
    assert found.change() == Change(SHA)
    assert found.change(base="v1") == Change(SHA, "v1", "merge base")


def test_a_schedule_has_no_payload_of_its_own(tmp_path: Path) -> None:
    found = event.read(
        {"GITHUB_EVENT_NAME": "schedule", "GITHUB_SHA": SHA, "GITHUB_REPOSITORY": "o/r"}
    )
    assert found is not None and found.repository == "o/r" and found.change() == Change(SHA)


@pytest.mark.parametrize("name", ["pull_request", "merge_group"])
def test_named_commits_replace_the_events(tmp_path: Path, name: str) -> None:
    kind = {"pull_request": "pull_request.opened", "merge_group": "merge_group.checks_requested"}
    found = read(tmp_path, name, payload(kind[name]))
    assert found.change(base="v1", head="v2") == Change("v2", "v1", "merge base")
    assert found.change(head="v2").head == "v2"


@pytest.mark.parametrize("name", ["pull_request", "merge_group", "push"])
@pytest.mark.parametrize(
    "content", [{}, [], {"pull_request": None}, {"merge_group": {"base_sha": 1}}]
)
def test_a_payload_that_lacks_its_commits(tmp_path: Path, name: str, content: Any) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(content))
    found = event.read({"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(file)})
    assert found is not None
    with pytest.raises(GateError) as raised:
        found.change()
    assert "--base" in raised.value.hint


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "event.json"
    file.write_bytes(content)
    environment = {"GITHUB_EVENT_NAME": "push", "GITHUB_EVENT_PATH": str(file)}
    with pytest.raises(GateError, match="GITHUB_EVENT_PATH"):
        event.read(environment)
    file.unlink()
    with pytest.raises(GateError, match="GITHUB_EVENT_PATH"):
        event.read(environment)


@pytest.mark.parametrize("sha", ["--upload-pack=x", "HEAD", "A" * 40, "a" * 39, "a" * 40 + "\n", 5])
def test_a_commit_is_a_whole_name(tmp_path: Path, sha: Any) -> None:
    content = payload("pull_request.opened")
    content["pull_request"]["base"]["sha"] = sha
    assert read(tmp_path, "pull_request", content).base_sha is None


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KINDS = sorted(path.stem for path in PAYLOADS.glob("*.json"))


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 30), max_size=5), JUNK)
def test_any_part_of_a_payload_may_be_junk(
    tmp_path_factory: pytest.TempPathFactory, kind: str, way: list[int], junk: Any
) -> None:
    content = copy.deepcopy(payload(kind))
    node: Any = content
    for step in way:
        keys = list(node) if isinstance(node, dict) else []
        if not keys:
            break
        key = keys[step % len(keys)]
        if not isinstance(node[key], dict) or step == way[-1]:
            node[key] = junk
            break
        node = node[key]
    found = read(tmp_path_factory.getbasetemp(), kind.partition(".")[0], content)
    try:
        change = found.change()
    except GateError:
        return
    assert change.head is None or len(change.head) == 40
