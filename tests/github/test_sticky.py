"""One comment a gate, whoever else writes at the same time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from github_runs import EMPTY, FAILED, PASSED, REPOSITORY
from github_stub import Comment, Fault, Pull, State, serve

from gate.errors import PublishError
from gate.github import marker, publish, sticky
from gate.github.api import Client
from gate.github.marker import Note
from gate.records import GateRun

OPTIONS = publish.Options()
OTHER_HEAD = "d" * 40


@contextmanager
def github(**held: Any) -> Iterator[tuple[State, Client]]:
    """A GitHub with pull request 7, and its client."""
    state = State(repository=REPOSITORY, pulls={7: Pull(number=7)}, **held)
    with serve(state) as url:
        yield state, Client(url, "token", REPOSITORY, budget_s=20, pause_s=0)


def post(run: GateRun, **changes: Any) -> sticky.Post:
    return publish.post(run.model_copy(update=changes), OPTIONS)


def comment(id: int, said: sticky.Post, author: str = "github-actions[bot]") -> Comment:
    return Comment(id=id, issue=7, body=sticky.compose(said, None), author=author)


def chatter(count: int) -> list[Comment]:
    return [Comment(id=n, issue=7, body=f"thought {n}", author="octocat") for n in range(count)]


def note(held: Comment) -> Note:
    read = marker.read(held.body)
    assert read is not None
    return read


def writes(state: State) -> list[str]:
    return [asked.method for asked in state.requests if asked.method != "GET"]


def test_the_first_run_creates_and_the_next_updates() -> None:
    with github() as (state, client):
        first = sticky.update(client, 7, post(FAILED))
        second = sticky.update(client, 7, post(PASSED, run_id=101, head_sha=OTHER_HEAD))
    (held,) = state.comments
    assert (first.done, second.done) == ("created", "updated")
    assert first.url == second.url is not None
    assert [(shown.verdict, shown.run) for shown in note(held).verdicts] == [
        ("fail", 100),
        ("pass", 101),
    ]
    assert held.body.splitlines()[3].startswith("## ✅")
    assert "Earlier verdict" in held.body and "runs/100)" in held.body


@pytest.mark.parametrize("again", [100, 101])
def test_the_same_verdict_on_the_same_commit_is_not_rewritten(again: int) -> None:
    with github() as (state, client):
        sticky.update(client, 7, post(FAILED))
        done = sticky.update(client, 7, post(FAILED, run_id=again)).done
    assert done == "unchanged" and writes(state) == ["POST"]


def test_the_same_verdict_on_another_commit_is_news() -> None:
    with github() as (state, client):
        sticky.update(client, 7, post(FAILED))
        assert sticky.update(client, 7, post(FAILED, run_id=101, head_sha=OTHER_HEAD)).done == (
            "updated"
        )
    assert note(state.comments[0]).marker.sha == OTHER_HEAD


@pytest.mark.parametrize("older", [{"run_id": 99, "run_attempt": 5}, {"run_attempt": 1}])
def test_a_newer_run_is_never_overwritten(older: dict[str, int]) -> None:
    with github() as (state, client):
        sticky.update(client, 7, post(FAILED, run_attempt=2))
        assert sticky.update(client, 7, post(PASSED, **older)).done == "newer"
    assert note(state.comments[0]).verdicts[-1].verdict == "fail"


@pytest.mark.parametrize("author", ["octocat", "other-app[bot]"])
def test_a_marker_of_somebody_else_is_ignored(author: str) -> None:
    planted = comment(3, post(PASSED, run_id=10**9), author)
    with github(comments=[planted]) as (state, client):
        assert sticky.update(client, 7, post(FAILED)).done == "created"
    assert state.comments[0] == planted and len(state.comments) == 2


def test_a_persons_token_knows_its_own_comments() -> None:
    planted = comment(3, post(PASSED))
    own = comment(4, post(PASSED), "ci-person")
    with github(comments=[planted, own], viewer="ci-person", app=None) as (state, client):
        sticky.update(client, 7, post(FAILED, run_id=101))
    assert [note(held).verdicts[-1].verdict for held in state.comments] == ["pass", "fail"]


def test_an_apps_token_learns_whose_it_is_by_what_it_creates() -> None:
    before = comment(4, post(PASSED), "gatekeeper[bot]")
    with github(comments=[before], viewer="gatekeeper[bot]", app="gatekeeper") as (state, client):
        sticky.update(client, 7, post(FAILED, run_id=101))
    (held,) = state.comments
    assert held.id == 4 and note(held).verdicts[-1].verdict == "fail"


def test_the_comment_is_found_behind_a_hundred_pages() -> None:
    own = comment(5000, post(FAILED))
    with github(comments=[*chatter(100), own], page_size=1) as (state, client):
        assert sticky.update(client, 7, post(PASSED, run_id=101)).done == "updated"
    assert len(state.comments) == 101


def test_it_works_on_an_enterprise_server() -> None:
    state = State(repository=REPOSITORY, pulls={7: Pull(number=7)})
    with serve(state, description="ghes-3.19", prefix="/api/v3") as url:
        client = Client(url, "token", REPOSITORY, pause_s=0)
        sticky.update(client, 7, post(FAILED))
        assert sticky.update(client, 7, post(PASSED, run_id=101)).done == "updated"
    assert len(state.comments) == 1


def test_another_key_has_another_comment() -> None:
    with github() as (state, client):
        sticky.update(client, 7, post(FAILED))
        sticky.update(client, 7, post(FAILED, key="nightly -->"))
    assert [note(held).marker.key for held in state.comments] == ["default", "nightly -->"]


def test_own_twins_are_removed_and_the_oldest_shows_the_newest() -> None:
    twins = [
        comment(9, post(PASSED, run_id=98)),
        comment(5, post(PASSED, run_id=97)),
        comment(7, post(FAILED, run_id=102)),
        comment(8, post(FAILED, run_id=102), "octocat"),
    ]
    with github(comments=twins) as (state, client):
        assert sticky.update(client, 7, post(PASSED, run_id=101)).done == "newer"
    assert {(held.id, held.author) for held in state.comments} == {
        (5, "github-actions[bot]"),
        (8, "octocat"),
    }
    kept = next(held for held in state.comments if held.id == 5)
    assert note(kept).marker.run == 102


def test_one_that_is_deleted_meanwhile_is_created_again() -> None:
    gone = Fault(method="PATCH", path="/comments/5", status=404, body={"message": "Not Found"})
    with github(comments=[comment(5, post(PASSED))], faults=[gone]) as (state, client):
        listing = iter([list(client.comments(7)), [], []])
        client.comments = lambda issue: iter(next(listing))  # type: ignore[method-assign]
        state.comments.clear()
        assert sticky.update(client, 7, post(FAILED, run_id=101)).done == "created"
    (held,) = state.comments
    assert held.id != 5 and note(held).verdicts[-1].verdict == "fail"


@pytest.mark.parametrize("applies", [True, False])
def test_after_an_uncertain_reply_it_looks_before_it_writes_again(applies: bool) -> None:
    dropped = Fault(method="POST", path="/comments", drop=True, applies=applies)
    with github(faults=[dropped]) as (state, client):
        sticky.update(client, 7, post(FAILED))
    assert len(state.comments) == 1
    assert writes(state) == ["POST"] if applies else ["POST", "POST"]


def test_an_uncertain_creation_by_an_app_leaves_no_twin() -> None:
    dropped = Fault(method="POST", path="/comments", drop=True, applies=True)
    with github(viewer="gatekeeper[bot]", app="gatekeeper", faults=[dropped]) as (state, client):
        sticky.update(client, 7, post(FAILED))
    assert len(state.comments) == 1


def test_a_listing_that_lags_makes_no_second_comment() -> None:
    with github() as (state, client):
        client.comments = lambda issue: iter([])  # type: ignore[method-assign]
        assert sticky.update(client, 7, post(FAILED)).url is not None
    assert len(state.comments) == 1


def test_a_read_only_token_is_told_what_is_missing() -> None:
    granted = {"pull_requests": "read", "contents": "read"}
    with github(granted=granted) as (state, client), pytest.raises(PublishError) as refused:
        sticky.update(client, 7, post(FAILED))
    assert "pull-requests: write" in refused.value.hint and state.comments == []


@pytest.mark.parametrize(
    ("mode", "runs", "shown"),
    [
        ("always", [EMPTY], []),
        ("always", [FAILED, EMPTY], ["fail", "skipped"]),
        ("failures", [PASSED], []),
        ("failures", [FAILED, PASSED], ["fail", "pass"]),
        ("changes", [PASSED, PASSED, FAILED], ["pass", "fail"]),
        ("changes", [PASSED, PASSED], ["pass"]),
    ],
)
def test_modes(mode: sticky.Mode, runs: list[GateRun], shown: list[str]) -> None:
    with github() as (state, client):
        for number, run in enumerate(runs):
            said = post(run, run_id=100 + number, head_sha=f"{number:040x}")
            sticky.update(client, 7, said, mode)
    verdicts = [each.verdict for held in state.comments for each in note(held).verdicts]
    assert verdicts == shown


def test_a_repeated_attempt_replaces_its_own_line_of_the_history() -> None:
    with github() as (state, client):
        sticky.update(client, 7, post(FAILED))
        sticky.update(client, 7, post(PASSED))
    assert [shown.verdict for shown in note(state.comments[0]).verdicts] == ["pass"]


def test_history_is_not_read_from_what_others_wrote_below() -> None:
    own = comment(5, post(FAILED))
    lines = own.body.splitlines()
    own.body = "\n".join([lines[0], "edited by hand", *lines[1:]])
    with github(comments=[own]) as (state, client):
        sticky.update(client, 7, post(PASSED, run_id=101))
    assert [shown.verdict for shown in note(state.comments[0]).verdicts] == ["pass"]


def as_long_as_allowed(history: str, limit: int) -> str:
    return "x" * (limit - len(history.encode())) + history


def test_a_full_comment_fits_with_all_that_is_hidden() -> None:
    with github() as (state, client):
        for number in range(14):
            said = post(FAILED, run_id=100 + number, head_sha=f"{number:040x}")
            sticky.update(client, 7, said._replace(render=as_long_as_allowed))
    (held,) = state.comments
    assert len(held.body.encode()) == 60_000
    assert len(note(held).verdicts) == 11


@pytest.mark.parametrize("app", ["github-actions", "gatekeeper"])
def test_two_creators_in_two_processes_leave_one_comment_of_the_newer_run(app: str) -> None:
    together = [
        Fault(method="GET", path="/issues/7/comments", times=2, together=2),
        Fault(method="POST", path="/issues/7/comments", times=2, together=2),
    ]
    pulls = {7: Pull(number=7)}
    state = State(
        repository=REPOSITORY, pulls=pulls, app=app, viewer=f"{app}[bot]", faults=together
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with serve(state) as url:
        command = [sys.executable, __file__, url]
        both = [subprocess.Popen([*command, run], env=environ) for run in ("201", "202")]
        assert [process.wait(60) for process in both] == [0, 0]
    assert len(state.asked("POST", "/issues/7/comments")) == 2
    (held,) = state.comments
    assert (held.id, held.author) == (1001, f"{app}[bot]")
    assert note(held).marker.run == 202


if __name__ == "__main__":
    alone = Client(sys.argv[1], "token", REPOSITORY, pause_s=0)
    sticky.update(alone, 7, post(FAILED, run_id=int(sys.argv[2])))
