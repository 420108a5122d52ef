"""A GitHub that holds one repository: state, faults, and both directions held against its API.

In a test::

    state = State(pulls={7: Pull(number=7, head_sha="a" * 40)})
    with serve(state) as api_url:
        Client(api_url, "token", state.repository)...
    assert state.comments[0].body == ...

As a process, for what runs outside of the test's (`--state` holds a `State` as JSON, is read at
the start where it exists, and is rewritten after every request)::

    python tests/github_stub.py --port 0 --state state.json     # prints its address
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from github_description import Description, described
from github_routes import REPOSITORY_ID, ROUTES, Call, Reply, link_header, refusal, unpermitted
from github_state import (
    READ_ONLY,
    Artifact,
    Comment,
    Entry,
    Fault,
    LabelEvent,
    Pull,
    Request,
    Run,
    State,
    Status,
    Tree,
    rate_limited,
    secondary_rate_limit,
)
from openapi_core.testing import MockRequest, MockResponse

__all__ = [
    "READ_ONLY",
    "Artifact",
    "Comment",
    "Entry",
    "Fault",
    "LabelEvent",
    "Pull",
    "Request",
    "Run",
    "State",
    "Status",
    "Tree",
    "rate_limited",
    "secondary_rate_limit",
    "serve",
]


@contextlib.contextmanager
def serve(
    state: State,
    *,
    description: str = "api.github.com",
    prefix: str = "",
    port: int = 0,
    file: Path | None = None,
) -> Iterator[str]:
    """Serve the repository on this machine.

    Args:
        state: What it holds; read and changed while it is served.
        description: Which of `fixtures/github-api` requests and replies are held against.
        prefix: Path before that of the API: `/api/v3` of a GHES, `/api/v1` of a Gitea.
        port: 0 for any.
        file: Where the state is written after every request.

    Yields:
        The API's address, as GITHUB_API_URL has it.

    Raises:
        AssertionError: At the end: a request or a reply departed from the description.
    """
    with (
        _Server(("127.0.0.1", 0), _Blobs, state) as blobs,
        _Server(("127.0.0.1", port), _Api, state) as api,
    ):
        api.description, api.prefix, api.file = described(description), prefix, file
        # Another host than the API's by name, as GitHub's archives are.
        api.blob_url = f"http://localhost:{blobs.server_address[1]}"
        yield f"http://127.0.0.1:{api.server_address[1]}{prefix}"
    assert not state.problems, "\n".join(state.problems)


class _Server(ThreadingHTTPServer):
    """A server that runs while its context is open."""

    daemon_threads = True
    request_queue_size = 64
    description: Description
    prefix: str
    blob_url: str
    file: Path | None

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], state: State
    ) -> None:
        super().__init__(address, handler)
        self.state = state

    def handle_error(self, *request: object) -> None:
        """A mistake of the stub must fail the test, not look like GitHub's."""
        if not isinstance(sys.exception(), ConnectionError):
            self.state.problems.append(traceback.format_exc())

    def __enter__(self) -> "_Server":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body at once: apart, the body waits for the headers' receipt
    server: _Server

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def read(self) -> tuple[Request, bytes]:
        """The request as it came, and its body's bytes."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        body = None
        with contextlib.suppress(ValueError):
            body = json.loads(content) if content else None
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            at=time.monotonic(),
        )
        return request, content

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        """A reply, where somebody still waits for it."""
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)


class _Blobs(_Handler):
    """Where archives lie: a host that must never see the token."""

    def do_GET(self) -> None:
        request, _ = self.read()
        state = self.server.state
        state.blob_requests.append(request)
        wanted = [one for one in state.artifacts if request.path == f"/artifact/{one.id}"]
        if "authorization" in request.headers:
            state.problems.append("the token went to the archives' host")
        request.status = 200 if wanted else 404
        content = wanted[0].content if wanted else b""
        self.send(request.status, content, {"Content-Type": "application/zip"})


class _Api(_Handler):
    def do_GET(self) -> None:
        request, content = self.read()
        state, prefix = self.server.state, self.server.prefix
        if not request.path.startswith(f"{prefix}/"):
            state.problems.append(f"{request.path} is not below {prefix}")
        own = f"/repositories/{REPOSITORY_ID}/"
        request.path = request.path.removeprefix(prefix).replace(
            own, f"/repos/{state.repository}/", 1
        )
        with state._lock:
            state.requests.append(request)
            fault = self._fault(request)
        reply = None
        asked = _described(request, content)
        departure = self.server.description.problem_of_request(asked)
        if departure is not None:
            state.problems.append(departure)
            reply = refusal(422, "Invalid request.")
        elif fault is None:
            reply = self._reply(request, asked)
        else:
            self._meet(fault)
            if fault.applies or (fault.status is None and not fault.drop):
                reply = self._reply(request, asked)
            time.sleep(fault.delay_s)
            if fault.status is not None:
                reply = Reply(fault.status, fault.body, fault.headers)
        dropped = reply is None or (fault is not None and fault.drop)
        request.status = 0 if dropped else reply.status
        self._note()
        if dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            encoded, headers = _encoded(reply)
            self.send(reply.status, encoded, headers)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815, the names are http.server's

    def _note(self) -> None:
        if self.server.file is not None:
            with self.server.state._lock:
                _write(self.server.file, self.server.state)

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.server.state.faults:
            fits = fault.method in ("*", request.method) and re.search(fault.path, request.path)
            if fits and fault.times:
                fault.times -= 1
                return fault
        return None

    def _meet(self, fault: Fault) -> None:
        """Wait for the others, ten seconds at most."""
        state = self.server.state
        with state._arrived:
            state._met[id(fault)] += 1
            state._arrived.notify_all()
            state._arrived.wait_for(lambda: state._met[id(fault)] >= fault.together, 10)

    def _reply(self, request: Request, asked: MockRequest) -> Reply:
        """The reply, after whatever the request does to the state."""
        state, description = self.server.state, self.server.description
        with state._lock:
            reply = self._act(request)
            encoded, headers = _encoded(reply)
            made = MockResponse(encoded, reply.status, headers, headers.get("Content-Type", ""))
            departure = description.problem_of_reply(asked, made)
            if departure is not None:
                state.problems.append(departure)
        return reply

    def _act(self, request: Request) -> Reply:
        state = self.server.state
        given = request.headers.get("authorization", "").partition(" ")[2]
        if not given or state.token not in (None, given):
            return refusal(401, "Bad credentials" if given else "Requires authentication")
        for route in ROUTES:
            if route.method == request.method and (found := route.pattern.fullmatch(request.path)):
                break
        else:
            return refusal(404, "Not Found")
        parts = found.groupdict()
        if "owner" in parts and f"{parts['owner']}/{parts['repo']}" != state.repository:
            return refusal(404, "Not Found")
        refused = unpermitted(state, request.method, route.permissions)
        if refused is not None:
            return refused
        url = f"http://{self.headers['Host']}{self.server.prefix}"
        call = Call(state, self.server.description, url, request, parts)
        reply = route.act(call)
        headers = dict(reply.headers)
        if reply.links:
            headers["Link"] = link_header(call, reply.links)
        if "Location" in headers:
            headers["Location"] = f"{self.server.blob_url}/{headers['Location']}"
        return reply._replace(headers=headers)


def _described(request: Request, content: bytes) -> MockRequest:
    """A request as the description is asked about it."""
    return MockRequest(
        "http://api.github.invalid",
        request.method,
        request.path,
        args=request.query,
        headers=request.headers,
        data=content or None,
        content_type=request.headers.get("content-type", ""),
    )


def _encoded(reply: Reply) -> tuple[bytes, dict[str, str]]:
    if reply.content is None:
        return b"", dict(reply.headers)
    if isinstance(reply.content, str):
        return reply.content.encode(), dict(reply.headers)
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return json.dumps(reply.content).encode(), {**kind, **reply.headers}


def _write(path: Path, state: State) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(state.model_dump_json(indent=1), encoding="utf-8")
    fresh.replace(path)


def main() -> None:
    """Serve until ended by a signal; 1 where something departed from the description."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--description", default="api.github.com")
    given = parser.parse_args()
    kept = given.state is not None and given.state.exists()
    state = State.model_validate_json(given.state.read_bytes()) if kept else State()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with serve(
        state,
        description=given.description,
        prefix=given.prefix,
        port=given.port,
        file=given.state,
    ) as url:
        if given.state is not None:
            _write(given.state, state)
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
