"""What goes wrong on the way to GitHub, and where the token goes."""

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from github_stub import (
    Artifact,
    Comment,
    Fault,
    Pull,
    Run,
    State,
    rate_limited,
    secondary_rate_limit,
    serve,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate import __version__
from gate.errors import PublishError
from gate.github.api import Client

HEAD = "a" * 40
REPEATED: dict[str, Callable[[Client], object]] = {
    "GET": lambda client: list(client.comments(7)),
    "PATCH": lambda client: client.update_comment(3, "new"),
    "DELETE": lambda client: client.delete_comment(3),
}


@pytest.fixture
def state() -> State:
    comment = Comment(id=3, issue=7, body="old", author="octocat")
    return State(pulls={7: Pull(number=7)}, comments=[comment])


@pytest.fixture
def url(state: State) -> Iterator[str]:
    with serve(state) as address:
        yield address


@pytest.fixture
def client(url: str, state: State) -> Client:
    return Client(url, "secret", state.repository, pause_s=0, budget_s=20)


@contextlib.contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server of which nothing is known."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with contextlib.suppress(ConnectionError):
                answer(self)

        do_POST = do_GET  # noqa: N815, the name is http.server's

        def log_message(self, *args: object) -> None:
            """Quiet."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()


def send(handler: BaseHTTPRequestHandler, content: bytes, **headers: str) -> None:
    handler.send_response(int(headers.pop("status", "200")))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("method", REPEATED)
def test_what_can_be_repeated_is(method: str, status: int, client: Client, state: State) -> None:
    state.faults = [Fault(status=status, times=3)]
    REPEATED[method](client)
    assert [one.status for one in state.requests][:3] == [status] * 3
    assert len(state.requests) == 4


@pytest.mark.parametrize("method", REPEATED)
def test_a_dropped_connection_is_made_again(method: str, client: Client, state: State) -> None:
    state.faults = [Fault(drop=True, applies=True)]
    REPEATED[method](client)
    assert len(state.requests) == 2


def test_repeating_ends(client: Client, state: State) -> None:
    state.faults = [Fault(status=502, times=-1)]
    with pytest.raises(PublishError, match=r"\(502\)") as failed:
        client.pull_request(7)
    assert len(state.requests) == 4
    assert failed.value.status == 502 and "githubstatus" in failed.value.hint


@pytest.mark.parametrize("fault", [Fault(status=502, applies=True), Fault(drop=True, applies=True)])
def test_a_comment_that_may_be_there_is_not_written_again(
    fault: Fault, client: Client, state: State
) -> None:
    state.faults = [fault.model_copy(update={"method": "POST"})]
    with pytest.raises(PublishError) as failed:
        client.create_comment(7, "text")
    assert failed.value.uncertain
    assert [comment.body for comment in client.comments(7)] == ["old", "text"]


def test_a_status_that_may_be_set_is_set_again(client: Client, state: State) -> None:
    state.faults = [Fault(drop=True, applies=True)]
    client.set_status(HEAD, "success", "quant-gate/main", "passed", None)
    assert [one.state for one in state.statuses] == ["success", "success"]


@pytest.mark.parametrize(
    ("status", "body", "said", "hint"),
    [
        (401, {"message": "Bad credentials"}, "Bad credentials", "has not expired"),
        (403, {"message": "Unable to create comment because issue is locked."}, "locked", "Mend"),
        (404, {"message": "Not Found"}, "Not Found", "`pull-requests: write`"),
        (410, {"message": "This issue was deleted"}, "This issue was deleted", "Mend"),
        (422, {"message": "Validation Failed", "errors": ["no"]}, "Validation Failed: no", "Mend"),
        (422, {"message": "V", "errors": [{"message": 3}]}, "V", "Mend"),
        (418, ["no object"], "it gives no reason", "Mend"),
        (400, "<html>no JSON", "it gives no reason", "Mend"),
        (400, {"message": "a\n::error::\x1b[31mb\u202e"}, "a ::error::b", "Mend"),
    ],
)
def test_a_refusal_is_quoted(
    status: int, body: object, said: str, hint: str, client: Client, state: State
) -> None:
    state.faults = [Fault(status=status, body=body)]
    with pytest.raises(PublishError) as refused:
        client.create_comment(7, "text")
    assert refused.value.message.startswith("GitHub did not comment on pull request 7: ")
    assert refused.value.message.endswith(f"{said} ({status})") or said == "locked"
    assert said in refused.value.message and hint in refused.value.hint
    assert (refused.value.status, refused.value.uncertain) == (status, False)
    assert len(state.requests) == 1


def test_a_comment_that_is_too_long(client: Client) -> None:
    with pytest.raises(PublishError, match=r"Body is too long \(maximum is 65536 characters\)"):
        client.create_comment(7, "x" * 65_537)


@pytest.mark.parametrize("status", [403, 429])
def test_a_limited_request_is_made_when_github_says(
    status: int, client: Client, state: State
) -> None:
    state.faults = [secondary_rate_limit(1, status=status, method="POST")]
    client.create_comment(7, "text")
    first, second = state.requests
    assert second.at - first.at >= 1
    assert [comment.body for comment in state.comments] == ["old", "text"]


def test_the_hour_s_limit_is_waited_for(client: Client, state: State) -> None:
    state.faults = [rate_limited(0)]
    assert client.pull_request(7).number == 7
    assert state.requests[1].at > state.requests[0].at + 0.5


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "3600"},
        {"Retry-After": "soon"},
        {"Retry-After": "9" * 5000},
        {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "4102444800"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "inf"},
        {"x-ratelimit-remaining": "0"},
        {},
    ],
    ids=str,
)
def test_nobody_waits_longer_than_there_is_time(
    headers: dict[str, str], client: Client, state: State
) -> None:
    state.faults = [Fault(status=429, headers=headers, times=-1)]
    with pytest.raises(PublishError, match=r"limits requests .*\(429\)") as limited:
        client.viewer()
    assert len(state.requests) == 1
    assert limited.value.status == 429 and "seconds or later" in limited.value.hint


def test_a_limit_is_no_missing_permission(client: Client, state: State) -> None:
    state.faults = [secondary_rate_limit(3600, status=403)]
    with pytest.raises(PublishError, match="limits requests") as limited:
        client.viewer()
    assert limited.value.status == 429


def test_a_limit_that_says_zero_seconds_does_not_last_forever(client: Client, state: State) -> None:
    state.faults = [Fault(status=429, headers={"Retry-After": "0"}, times=-1)]
    with pytest.raises(PublishError, match="limits requests"):
        client.pull_request(7)
    assert len(state.requests) == 4


def test_writes_are_apart(url: str, state: State) -> None:
    client = Client(url, "secret", state.repository, pause_s=0.2)
    for text in ("one", "two"):
        client.update_comment(3, text)
    first, second = state.requests
    assert second.at - first.at >= 0.2


def test_a_slow_server_is_left_in_time(url: str, state: State) -> None:
    state.faults = [Fault(delay_s=30, times=-1)]
    client = Client(url, "secret", state.repository, pause_s=0, budget_s=0.8)
    with pytest.raises(PublishError, match="GitHub was asked to read pull request 7"):
        client.pull_request(7)
    # Whoever waits for the first reply does not come to ask again.
    assert len(state.requests) > 1
    with pytest.raises(PublishError, match="time for GitHub's API was used up"):
        client.pull_request(7)


def test_time_between_requests_is_not_counted(url: str, state: State) -> None:
    client = Client(url, "secret", state.repository, pause_s=0, budget_s=0.5)
    time.sleep(0.6)
    assert client.pull_request(7).number == 7


def test_a_server_that_sends_byte_by_byte_is_left_in_time() -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b"[", Content_Length="1000000")
        for _ in range(1000):
            time.sleep(0.05)
            handler.wfile.write(b" ")

    with server(trickle) as url:
        client = Client(url, "secret", "octo-org/models", pause_s=0, budget_s=0.5)
        with pytest.raises(PublishError, match="time for GitHub's API was used up"):
            list(client.comments(7))


@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_without_end_is_not_read(packed: bool) -> None:
    content = b"[" + b" " * 21_000_000
    headers = {"Content_Encoding": "gzip"} if packed else {}
    content = gzip.compress(content) if packed else content
    with server(lambda handler: send(handler, content, **headers)) as url:
        client = Client(url, "secret", "octo-org/models", pause_s=0)
        with pytest.raises(PublishError, match="larger than 20,000,000 bytes"):
            list(client.comments(7))


def test_a_reply_that_ends_early() -> None:
    with server(lambda handler: send(handler, b"[]", Content_Length="100")) as url:
        client = Client(url, "secret", "octo-org/models", pause_s=0)
        with pytest.raises(PublishError, match="GitHub was asked to list the comments"):
            list(client.comments(7))


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        client = Client(url, "secret", "octo-org/models", pause_s=0)
        with pytest.raises(PublishError, match=f"failed or was dropped: {url}") as failed:
            client.pull_request(7)
    assert "GITHUB_API_URL" in failed.value.hint


def test_a_signed_address_is_not_shown(client: Client, state: State) -> None:
    location = "http://127.0.0.1:9/archive?signature=SECRET"
    state.faults = [Fault(status=302, headers={"Location": location})]
    with pytest.raises(PublishError) as failed:
        client.download_artifact(1, 10)
    assert "SECRET" not in failed.value.message + failed.value.hint


def test_a_server_without_tls(url: str, state: State) -> None:
    client = Client(url.replace("http", "https"), "secret", state.repository, pause_s=0)
    with pytest.raises(PublishError, match="REQUESTS_CA_BUNDLE"):
        client.pull_request(7)


def test_a_proxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client = Client("http://github.invalid", "secret", "octo-org/models", pause_s=0)
    with pytest.raises(PublishError, match="the proxy did not reach it"):
        client.pull_request(7)


def test_every_request_says_who_asks(client: Client, state: State) -> None:
    client.pull_request(7)
    headers = state.requests[0].headers
    assert headers["user-agent"] == f"quant-gate/{__version__}"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_token_does_not_follow_to_another_host(
    status: int, client: Client, state: State
) -> None:
    seen = []

    def note(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("Authorization"))
        send(handler, b"[]")

    with server(note) as other:
        state.faults = [Fault(status=status, headers={"Location": f"{other}/x"})]
        assert list(client.comments(7)) == []
    assert seen == [None]


def test_a_netrc_does_not_give_the_archives_host_a_password(
    client: Client, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [f"machine {host} login me password mine" for host in ("localhost", "127.0.0.1")]
    (tmp_path / "netrc").write_text("\n".join(entries))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    state.runs[5], state.artifacts = Run(id=5), [Artifact(id=1, run_id=5, name="x", content=b"y")]
    assert client.download_artifact(1, 10) == b"y"
    assert state.requests[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in state.blob_requests[0].headers


def test_a_renamed_repository_is_followed_to(client: Client, state: State, url: str) -> None:
    moved = f"{url}/repositories/1296269/pulls/7"
    state.faults = [Fault(status=301, headers={"Location": moved})]
    assert client.pull_request(7).number == 7
    assert state.requests[1].headers["authorization"] == "Bearer secret"
    moved = f"{url}/repositories/1296269/issues/comments/3"
    state.faults = [Fault(status=307, headers={"Location": moved})]
    client.update_comment(3, "new")
    assert state.comments[0].body == "new"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_written_to_another_host(status: int, client: Client, state: State) -> None:
    with serve(State()) as other:
        location = f"{other}/repos/octo-org/models/issues/7/comments"
        state.faults = [Fault(status=status, headers={"Location": location})]
        with pytest.raises(PublishError, match=rf"\({status}\)") as refused:
            client.create_comment(7, "text")
    assert "it has moved" in refused.value.hint


@pytest.mark.parametrize(
    "location", ["/user", "file:///etc/passwd", "http://[::1", "//", "http://a b"]
)
def test_redirects_that_lead_nowhere(location: str, client: Client, state: State) -> None:
    state.faults = [Fault(status=302, headers={"Location": location}, times=-1)]
    with pytest.raises(PublishError):
        client.pull_request(7)
    assert len(state.requests) <= 5


@pytest.mark.parametrize(
    "there", ["http://localhost:1/x", "https://api.github.invalid", "http://["]
)
def test_a_further_page_elsewhere_is_not_read(there: str, client: Client, state: State) -> None:
    headers = {"Link": f'<{there}>; rel="next"'}
    state.faults = [Fault(status=200, headers=headers, body=[])]
    with pytest.raises(PublishError, match=r"another host|cannot be read"):
        list(client.comments(7))


def test_a_token_with_a_line_end(url: str, state: State) -> None:
    Client(url, "secret\n", state.repository).pull_request(7)
    assert state.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["", "se\ncret", "se cret", "sécret"])
def test_what_is_no_token_is_not_shown(token: str) -> None:
    with pytest.raises(PublishError) as refused:
        Client("https://api.github.com", token, "octo-org/models")
    assert "cret" not in refused.value.message


@pytest.mark.parametrize(
    "address", ["", "api.github.com", "ftp://api.github.com", "https://u:p@host", "https://h:port"]
)
def test_an_address_that_cannot_be_used(address: str) -> None:
    with pytest.raises(PublishError, match="address of GitHub's API"):
        Client(address, "secret", "octo-org/models")


READS: list[Callable[[Client], object]] = [
    lambda client: list(client.comments(7)),
    lambda client: client.pull_request(7),
    lambda client: client.pull_requests_of(HEAD, head_owner="a", head_ref="b"),
    lambda client: client.label_events(7),
    lambda client: client.permission("octocat"),
    lambda client: client.tree(HEAD),
    lambda client: client.merge_base(HEAD, HEAD),
    lambda client: client.workflow_run(5),
    lambda client: client.artifacts(5),
    lambda client: client.viewer(),
    lambda client: client.create_comment(7, "text"),
]
KEYS = "id body user login number state head base sha ref labels name tree truncated path mode type"
KEYS += " event label actor permission artifacts merge_base_commit expired size_in_bytes head_sha"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HEAD),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=6)
    ),
    max_leaves=12,
)


@pytest.fixture
def content() -> Iterator[tuple[list[bytes], Client]]:
    held = [b""]
    with server(lambda handler: send(handler, held[0])) as url:
        yield held, Client(url, "secret", "octo-org/models", pause_s=0, budget_s=60)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(read=st.sampled_from(READS), value=VALUES)
def test_any_reply_is_read_or_refused(
    content: tuple[list[bytes], Client], read: Callable[[Client], object], value: object
) -> None:
    held, client = content
    held[0] = json.dumps(value).encode()
    with contextlib.suppress(PublishError):
        read(client)


@pytest.mark.parametrize(
    "junk", [b"", b"\xff\xfe", b"<html>", b"[" * 100_000, b'[{"id":' + b"9" * 5000 + b"}]"]
)
def test_what_is_no_reply_is_refused(content: tuple[list[bytes], Client], junk: bytes) -> None:
    held, client = content
    held[0] = junk
    for read in READS:
        with pytest.raises(PublishError, match="not what its API describes"):
            read(client)


PULL = {"number": 7, "state": "open", "user": {"login": "octocat"}, "labels": []}
PULL |= {side: {"ref": "main", "sha": HEAD, "repo": None} for side in ("head", "base")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": "7"},
        {"number": True},
        {"number": 7.0},
        {"state": "merged"},
        {"user": {"login": 3}},
        {"head": None},
        {"base": {"ref": "main", "sha": HEAD.upper()}},
        {"labels": 3},
        {"labels": None},
        {"labels": "accepted"},
        {"labels": [{"name": 3}]},
        {"labels": [None]},
    ],
    ids=str,
)
def test_types_are_not_converted(
    content: tuple[list[bytes], Client], wrong: dict[str, object]
) -> None:
    held, client = content
    held[0] = json.dumps(PULL).encode()
    assert client.pull_request(7).author == "octocat"
    held[0] = json.dumps({**PULL, **wrong}).encode()
    with pytest.raises(PublishError, match=f"at /{next(iter(wrong))}"):
        client.pull_request(7)


def test_a_commit_that_is_no_commit(client: Client, state: State) -> None:
    body = {"merge_base_commit": {"sha": "--upload-pack=x"}}
    state.faults = [Fault(status=200, body=body)]
    with pytest.raises(PublishError, match="at /merge_base_commit/sha"):
        client.merge_base(HEAD, HEAD)
