"""The GitHub of the tests is as strict as the one that it stands for."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from github_description import described
from github_stub import READ_ONLY, Fault, Pull, State, serve

STUB = Path(__file__).parent.parent / "github_stub.py"
COMMENTS = "/repos/octo-org/models/issues/7/comments"
STATUSES = f"/repos/octo-org/models/statuses/{'a' * 40}"
HEADERS = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "departure"),
    [
        ("POST", COMMENTS, {"text": "no body"}, r"\$: 'body' is a required property"),
        ("POST", COMMENTS, {"body": 3}, r"\$\.body: .*not of type"),
        ("POST", STATUSES, {"state": "passed"}, r"\$\.state: 'passed' is not one of"),
        ("GET", "/repos/octo-org/models/issues/x/comments", None, "Path parameter error"),
        ("GET", f"{COMMENTS}?page=x", None, "Query parameter error"),
        ("GET", "/repos/octo-org/models/actions/cache", None, "Path not found"),
        ("DELETE", COMMENTS, None, "Operation delete not found"),
    ],
)
def test_requests_that_github_does_not_describe(
    method: str, path: str, sent: object, departure: str
) -> None:
    with pytest.raises(AssertionError, match=departure), serve(State()) as url:
        done = requests.request(method, url + path, json=sent, headers=HEADERS, timeout=9)
        assert done.status_code == 422


def test_replies_that_github_does_not_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    minimal = {"issue-comment": {"id": "one"}, "simple-user": {}}
    monkeypatch.setattr(described("api.github.com"), "minimal", minimal.get)
    with pytest.raises(AssertionError, match="'node_id' is a req"), serve(State(app=None)) as url:
        requests.post(url + COMMENTS, json={"body": "x"}, headers=HEADERS, timeout=9)


@pytest.mark.parametrize(
    ("path", "sent", "error"),
    [
        (
            COMMENTS,
            {"body": "x" * 65_537},
            {
                "resource": "IssueComment",
                "code": "unprocessable",
                "field": "data",
                "message": "Body is too long (maximum is 65536 characters)",
            },
        ),
        (
            STATUSES,
            {"state": "success", "description": "x" * 141},
            {
                "resource": "Status",
                "code": "custom",
                "field": "description",
                "message": "description is too long (maximum is 140 characters)",
            },
        ),
    ],
)
def test_limits_that_are_not_described(path: str, sent: object, error: dict[str, str]) -> None:
    with serve(State()) as url:
        done = requests.post(url + path, json=sent, headers=HEADERS, timeout=9)
    assert (done.status_code, done.json()["errors"]) == (422, [error])


def test_a_token_that_only_reads() -> None:
    with serve(State(granted=READ_ONLY)) as url:
        assert requests.get(url + COMMENTS, headers=HEADERS, timeout=9).json() == []
        done = requests.post(url + COMMENTS, json={"body": "x"}, headers=HEADERS, timeout=9)
        assert requests.get(url + COMMENTS, timeout=9).status_code == 401
    assert (done.status_code, done.json()["message"]) == (
        403,
        "Resource not accessible by integration",
    )
    accepted = done.headers["x-accepted-github-permissions"]
    assert accepted == "issues=write; pull_requests=write"


def test_pages_are_linked_by_the_repository_s_number() -> None:
    state = State(page_size=1)
    with serve(state, prefix="/api/v3", description="ghes-3.19") as url:
        for text in ("one", "two"):
            requests.post(url + COMMENTS, json={"body": text}, headers=HEADERS, timeout=9)
        first = requests.get(f"{url}{COMMENTS}?per_page=100", headers=HEADERS, timeout=9)
        following = first.links["next"]["url"]
        assert following.startswith(f"{url}/repositories/")
        [second] = requests.get(following, headers=HEADERS, timeout=9).json()
    assert second["body"] == "two"


def test_requests_that_meet() -> None:
    """Two that look before they write: both see nothing, for certain."""
    seen: list[object] = []
    state = State(faults=[Fault(method="GET", path="comments", times=2, together=2)])
    with serve(state) as url:

        def look_and_write() -> None:
            seen.append(requests.get(url + COMMENTS, headers=HEADERS, timeout=30).json())
            requests.post(url + COMMENTS, json={"body": "x"}, headers=HEADERS, timeout=30)

        both = [threading.Thread(target=look_and_write) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
    assert seen == [[], []]
    assert len(state.comments) == 2


def test_as_a_process(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text(State(pulls={7: Pull(number=7)}).model_dump_json())
    with subprocess.Popen(
        [sys.executable, STUB, "--state", file], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        done = requests.post(url + COMMENTS, json={"body": "text"}, headers=HEADERS, timeout=9)
        assert done.status_code == 201
        # What happened is there before the process ends.
        assert json.loads(file.read_bytes())["comments"][0]["body"] == "text"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert State.model_validate_json(file.read_bytes()).requests[0].status == 201
