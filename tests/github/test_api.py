"""The client against a GitHub that keeps state and holds both directions against its own API."""

from collections.abc import Callable, Iterator

import pytest
from github_state import READ_ONLY
from github_stub import (
    Artifact,
    Comment,
    Entry,
    Fault,
    LabelEvent,
    Pull,
    Run,
    State,
    Tree,
    serve,
)

from gate.errors import GateError, PublishError
from gate.github import api
from gate.github.api import Client, TreeEntry

HEAD, BASE, OTHER = "a" * 40, "b" * 40, "d" * 40
SERVERS = {"github.com": ("api.github.com", ""), "GHES": ("ghes-3.19", "/api/v3")}


@pytest.fixture
def state() -> State:
    return State(pulls={7: Pull(number=7, head_sha=HEAD, base_sha=BASE, labels=["accepted"])})


@pytest.fixture(params=SERVERS)
def client(request: pytest.FixtureRequest, state: State) -> Iterator[Client]:
    description, prefix = SERVERS[request.param]
    with serve(state, description=description, prefix=prefix) as url:
        yield Client(url, "secret", state.repository, pause_s=0)


@pytest.fixture
def github(state: State) -> Iterator[Client]:
    """For what does not depend on the server."""
    with serve(state) as url:
        yield Client(url, "secret", state.repository, pause_s=0)


def test_a_comment_is_written_read_changed_and_removed(client: Client, state: State) -> None:
    made = client.create_comment(7, "first")
    assert (made.body, made.author, made.app) == ("first", "github-actions[bot]", "github-actions")
    assert made.html_url.endswith(f"/pull/7#issuecomment-{made.id}")
    assert [comment.id for comment in client.comments(7)] == [made.id]
    changed = client.update_comment(made.id, "second")
    assert changed is not None
    assert (changed.id, changed.body, state.comments[0].body) == (made.id, "second", "second")
    client.delete_comment(made.id)
    assert not state.comments


def test_a_comment_that_was_deleted_meanwhile(client: Client) -> None:
    assert client.update_comment(4, "text") is None
    client.delete_comment(4)


def test_all_of_a_hundred_pages_are_read(github: Client, state: State) -> None:
    state.page_size = 1
    state.comments = [
        Comment(id=number, issue=7, body=f"text {number}", author="octocat")
        for number in range(1, 101)
    ]
    assert [comment.id for comment in github.comments(7)] == list(range(1, 101))
    assert len(state.requests) == 100
    assert {one.query["per_page"] for one in state.requests} == {"100"}


def test_pages_are_read_only_as_they_are_wanted(github: Client, state: State) -> None:
    state.page_size = 1
    state.comments = [Comment(id=one, issue=7, body="", author="octocat") for one in (1, 2, 3)]
    assert next(github.comments(7)).id == 1
    assert len(state.requests) == 1


def test_too_many_pages_are_an_error(
    github: Client, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MOST_PAGES", 2)
    state.page_size = 1
    state.comments = [Comment(id=one, issue=7, body="", author="octocat") for one in (1, 2, 3)]
    with pytest.raises(PublishError, match="more than 2 pages"):
        list(github.comments(7))


def test_a_comment_of_an_account_that_is_gone(github: Client, state: State) -> None:
    state.faults = [Fault(status=200, body=[{"id": 3, "body": "text", "user": None}])]
    [comment] = github.comments(7)
    assert (comment.author, comment.app) == (None, None)


@pytest.mark.parametrize(
    ("app", "login"), [("github-actions", None), (None, "github-actions[bot]")]
)
def test_whose_token_it_is(
    client: Client, state: State, app: str | None, login: str | None
) -> None:
    state.app = app
    assert client.viewer() == login


def test_a_status_is_set(client: Client, state: State) -> None:
    client.set_status(HEAD, "failure", "quant-gate/main", "1 of 2 failed", "https://runs.invalid/1")
    client.set_status(HEAD, "success", "quant-gate/main", "2 passed", None)
    assert [(one.sha, one.state, one.target_url) for one in state.statuses] == [
        (HEAD, "failure", "https://runs.invalid/1"),
        (HEAD, "success", None),
    ]


def test_a_pull_request(client: Client) -> None:
    pull = client.pull_request(7)
    assert (pull.number, pull.state, pull.labels) == (7, "open", ("accepted",))
    assert (pull.head_sha, pull.head_ref, pull.head_repository) == (
        HEAD,
        "change",
        "octo-org/models",
    )
    assert (pull.base_sha, pull.base_ref, pull.author) == (BASE, "main", "octocat")


def test_a_pull_request_whose_fork_is_gone(client: Client, state: State) -> None:
    state.pulls[8] = Pull(number=8, head_repository="")
    assert client.pull_request(8).head_repository is None


def test_pull_requests_of_a_commit(client: Client, state: State) -> None:
    fork = {"head_repository": "someone/models", "head_ref": "patch #1 & more"}
    state.pulls[8] = Pull(number=8, head_sha=HEAD, **fork)
    state.pulls[9] = Pull(number=9, head_sha=OTHER, state="closed", **fork)
    assert [pull.number for pull in client.pull_requests_of(HEAD)] == [7]
    of_the_fork = client.pull_requests_of(HEAD, head_owner="someone", head_ref="patch #1 & more")
    assert [pull.number for pull in of_the_fork] == [7, 8]


def test_who_set_and_took_off_labels(client: Client, state: State) -> None:
    state.page_size = 1
    state.label_events = [
        LabelEvent(issue=7, label="accepted", actor="maintainer"),
        LabelEvent(issue=9, label="accepted"),
        LabelEvent(issue=7, label="accepted", at="2026-02-02T03:04:05Z", added=False),
    ]
    assert [(one.label, one.actor, one.at, one.added) for one in client.label_events(7)] == [
        ("accepted", "maintainer", "2026-01-02T03:04:05Z", True),
        ("accepted", "maintainer", "2026-02-02T03:04:05Z", False),
    ]


def test_other_events_are_passed_over(github: Client, state: State) -> None:
    label = {"event": "labeled", "created_at": "2026-01-02T03:04:05Z", "label": {"name": "x"}}
    body = [{"event": "assigned", "actor": {"login": "octocat"}}, {**label, "actor": None}]
    state.faults = [Fault(status=200, body=body)]
    [found] = github.label_events(7)
    assert (found.label, found.actor, found.added) == ("x", None, True)


@pytest.mark.parametrize(
    ("role", "permission"),
    [("admin", "admin"), ("maintain", "write"), ("triage", "read"), (None, "none")],
)
def test_what_a_user_may_do(
    client: Client, state: State, role: str | None, permission: str
) -> None:
    if role is not None:
        state.permissions["dependabot[bot]"] = role
    assert client.permission("dependabot[bot]") == permission


def test_the_files_of_a_commit(client: Client, state: State) -> None:
    state.trees[HEAD] = Tree(
        entries=[
            Entry(path="checkpoint", mode="040000", type="tree", size=None),
            Entry(path="checkpoint/config.json", size=7),
        ]
    )
    assert client.tree(HEAD) == [
        TreeEntry("checkpoint", "040000", "tree", "c" * 40),
        TreeEntry("checkpoint/config.json", "100644", "blob", "c" * 40, 7),
    ]


def test_a_tree_that_was_cut_short_is_an_error(github: Client, state: State) -> None:
    state.trees[HEAD] = Tree(entries=[Entry(path="config.json")], truncated=True)
    with pytest.raises(GateError, match="more files than GitHub's API lists") as refused:
        github.tree(HEAD)
    assert "fetch-depth: 0" in refused.value.hint


def test_where_two_commits_parted(client: Client, state: State) -> None:
    state.merge_bases[f"{BASE}...{HEAD}"] = OTHER
    assert client.merge_base(BASE, HEAD) == OTHER


def test_a_workflow_run_and_what_it_stored(client: Client, state: State) -> None:
    state.runs[5] = Run(id=5, head_sha=HEAD, head_repository="someone/models")
    state.artifacts = [
        Artifact(id=one, run_id=5, name=f"quant-gate-{one}", content=b"ZIP" * one) for one in (1, 2)
    ]
    state.page_size = 1
    run = client.workflow_run(5)
    assert (run.event, run.head_sha, run.head_branch) == ("pull_request", HEAD, "change")
    assert (run.head_repository, run.conclusion) == ("someone/models", "success")
    assert [(one.id, one.name, one.size_bytes) for one in client.artifacts(5)] == [
        (1, "quant-gate-1", 3),
        (2, "quant-gate-2", 6),
    ]
    assert client.download_artifact(2, 6) == b"ZIPZIP"
    # The stub also fails the test where the token comes to that host.
    assert [one.path for one in state.blob_requests] == ["/artifact/2"]


def test_an_artifact_over_the_limit_is_not_read(github: Client, state: State) -> None:
    state.runs[5] = Run(id=5)
    state.artifacts = [Artifact(id=1, run_id=5, name="quant-gate", content=b"x" * 1001)]
    with pytest.raises(PublishError, match="larger than 1,000 bytes"):
        github.download_artifact(1, 1000)


def test_an_artifact_that_expired(github: Client, state: State) -> None:
    state.runs[5] = Run(id=5)
    state.artifacts = [Artifact(id=1, run_id=5, name="quant-gate", expired=True)]
    with pytest.raises(PublishError, match=r"Artifact has expired \(410\)"):
        github.download_artifact(1, 1000)


def test_only_comments_and_statuses_are_asked_of_gitea(state: State) -> None:
    with serve(state, prefix="/api/v1") as url:
        gitea = Client(url, "secret", state.repository, pause_s=0)
        gitea.create_comment(7, "text")
        gitea.set_status(HEAD, "success", "quant-gate/main", "passed", None)
        assert [comment.body for comment in gitea.comments(7)] == ["text"]


PERMISSIONS: dict[str, tuple[Callable[[Client], object], str]] = {
    "comment": (lambda client: client.create_comment(7, "text"), "pull-requests: write"),
    "update": (lambda client: client.update_comment(3, "text"), "pull-requests: write"),
    "delete": (lambda client: client.delete_comment(3), "pull-requests: write"),
    "status": (lambda client: client.set_status(HEAD, "error", "x", "y", None), "statuses: write"),
    "read": (lambda client: client.pull_request(7), "pull-requests: read"),
    "list": (lambda client: list(client.comments(7)), "pull-requests: read"),
    "run": (lambda client: client.workflow_run(5), "actions: read"),
    "tree": (lambda client: client.tree(HEAD), "contents: read"),
}


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_refusal_names_the_permission(name: str, client: Client, state: State) -> None:
    act, permission = PERMISSIONS[name]
    # A fork's token reads; the last four are refused to one that may do nothing.
    state.granted = READ_ONLY if permission.endswith("write") else {}
    state.comments = [Comment(id=3, issue=7, body="old", author="octocat")]
    with pytest.raises(PublishError, match=r"Resource not accessible by integration \(403\)") as no:
        act(client)
    assert f"`{permission}`" in no.value.hint
    assert no.value.status == 403 and not no.value.uncertain
    assert len(state.requests) == 1 and state.comments[0].body == "old"


def test_a_permission_that_only_github_names(github: Client, state: State) -> None:
    headers = {"x-accepted-github-permissions": "repository_hooks=write; administration=read"}
    body = {"message": "Resource not accessible by personal access token"}
    state.faults = [Fault(status=403, headers=headers, body=body)]
    with pytest.raises(PublishError) as refused:
        github.create_comment(7, "text")
    assert "`repository-hooks: write` or `administration: read`" in refused.value.hint


def test_a_name_that_is_no_repository() -> None:
    for name in ("models", "a/b/c", "a/../b", "a/b?x", "a/b\n", "", "ä/b"):
        with pytest.raises(PublishError, match="no repository of GitHub"):
            Client("https://api.github.com", "secret", name)
