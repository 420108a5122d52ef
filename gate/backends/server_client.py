"""Requests to an OpenAI-compatible server: bounded, patient, and the key to its origin alone."""

import ipaddress
import json
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from gate import __version__, web
from gate.backends.parallel import parallel
from gate.errors import BackendUnavailableError, ServerError, SettingsError
from gate.plain import plain
from gate.settings import Server

if TYPE_CHECKING:
    import requests

ATTEMPTS = 5
REPEATED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a server says that is starting, crowded, or behind a gateway that is."""
MOST_WAIT_S = 120.0
CONNECT_TIMEOUT_S = 10.0
MOST_REPLY_BYTES = 64 * 2**20
"""Log-probabilities of a window of 100,000 tokens take about 20 MB."""
MOST_QUOTED_CHARS = 200

Q = TypeVar("Q")
A = TypeVar("A")


class _Reply(NamedTuple):
    status: int
    retry_after: str | None
    content: bytes


class Client:
    """A session with one server, which several threads may use.

    Args:
        server: Whom to ask.
        backoff_s: First wait before a request is repeated; it doubles.

    Attributes:
        host: Host and port, as messages and reports name the server.

    Raises:
        BackendUnavailableError: The key is not set, or no header can hold it.
        SettingsError: Plain http would leave the private network.
    """

    def __init__(self, server: Server, backoff_s: float = 1.0) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self.host = urlsplit(server.url).netloc
        self._server, self._backoff_s = server, backoff_s
        self._origin, self._key = web.origin(server.url), _key(server)
        _require_private(server, self.host)
        self._session = requests.Session()
        # What stays in the private network goes through no proxy.
        self._session.trust_env = server.url.startswith("https:")
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        for scheme in ("https://", "http://"):
            adapter = HTTPAdapter(pool_maxsize=server.concurrency)
            self._session.mount(scheme, adapter)
        self._session.headers.update(
            {"Accept": "application/json", "User-Agent": f"quant-gate/{__version__}"}
        )

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def get(self, path: str, doing: str) -> Any:
        """The JSON at a path below `/v1`; see `post`."""
        return self._decoded(self._patiently("GET", path, None, doing), doing)

    def post(self, path: str, payload: dict[str, Any], doing: str) -> Any:
        """The JSON that a path below `/v1` replies to a payload.

        Args:
            path: Such as `completions`.
            payload: Is sent as JSON.
            doing: What is not done where it fails, such as "answer document 7 of ifeval".

        Raises:
            ServerError: The server refuses, fails again and again, or replies no JSON.
        """
        return self._decoded(self._patiently("POST", path, payload, doing), doing)

    def all(self, ask: Callable[[Q], A], questions: Sequence[Q]) -> list[A]:
        """What is answered to each question, in their order; some are asked at the same time.

        The first failure is raised at once: what is under way then goes on in the background, and
        is not waited for.
        """
        return parallel(ask, questions, self._server.concurrency)

    def _patiently(
        self, method: str, path: str, payload: dict[str, Any] | None, doing: str
    ) -> bytes:
        """The content of a reply of success; what may pass is asked for again."""
        import requests
        from urllib3.exceptions import HTTPError
        from urllib3.util import Retry

        repeats = Retry(total=ATTEMPTS - 1, status_forcelist=REPEATED, allowed_methods=None)
        for attempt in range(ATTEMPTS):
            wait_s = self._backoff_s * float(2**attempt)
            try:
                reply = self._once(method, path, payload)
            except (TimeoutError, requests.ReadTimeout, web.TooLargeError) as error:
                raise self._unusable(doing, error) from error
            except (requests.RequestException, HTTPError, OSError) as error:
                failure = self._unreachable(doing, error)
            else:
                if reply.status == 200:
                    return reply.content
                failure = self._refused(doing, reply)
                if not repeats.is_retry(method, reply.status):
                    raise failure
                wait_s = _asked_wait_s(reply.retry_after) or wait_s
            if attempt + 1 < ATTEMPTS:
                time.sleep(min(wait_s, MOST_WAIT_S))
        raise failure

    def _once(self, method: str, path: str, payload: dict[str, Any] | None) -> _Reply:
        with self._session.request(
            method,
            f"{self._server.url}/v1/{path}",
            json=payload,
            auth=self._authorize,
            # The key must not follow, and neither must the prompts.
            allow_redirects=False,
            stream=True,
            timeout=(CONNECT_TIMEOUT_S, self._server.timeout_s),
        ) as response:
            deadline = time.monotonic() + self._server.timeout_s
            content = web.body(response, MOST_REPLY_BYTES, deadline)
            return _Reply(response.status_code, response.headers.get("Retry-After"), content)

    def _authorize(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Add the key where it may go; being set also keeps a .netrc from being used."""
        if self._key is not None and web.origin(request.url or "") == self._origin:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _decoded(self, content: bytes, doing: str) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ServerError(
                f"the server at {self.host} was asked to {doing} and replied no JSON",
                "Check server.url in quant-gate.yaml: it must be the address of the API.",
            ) from error

    def _refused(self, doing: str, reply: _Reply) -> ServerError:
        """What a status other than 200 means, and what to do."""
        status = reply.status
        if 300 <= status < 400:
            what, words = f"the server at {self.host} redirects elsewhere", "it was not followed"
        else:
            what = f"the server at {self.host} did not {doing}"
            words = _words(reply.content) or "it gives no reason"
        if status in (401, 403):
            hint = "Name the environment variable of its key: server.key_env in quant-gate.yaml."
        elif 300 <= status < 400:
            hint = "Write the address that is meant into server.url, if you trust it."
        elif status == 429:
            hint = "Lower server.concurrency, or run again later: finished batches are kept."
        elif status >= 500:
            hint = "Look at the server's log, and run again: finished batches are kept."
        else:
            hint = "Mend what the server names: its options, or the task's in quant-gate.yaml."
        return ServerError(f"{what}: {words} ({status})", hint, status=status)

    def _unreachable(self, doing: str, error: Exception) -> ServerError:
        return ServerError(
            f"the server at {self.host} was asked to {doing}, and {web.reason(error)}",
            "Start the server, check server.url, and run again: finished batches are kept.",
        )

    def _unusable(self, doing: str, error: Exception) -> ServerError:
        """A reply that would be no better if it were asked for again."""
        if isinstance(error, web.TooLargeError):
            return ServerError(
                f"the server at {self.host} was asked to {doing}; its reply is {error}",
                "Check server.url in quant-gate.yaml: it must be the address of the API.",
            )
        return ServerError(
            f"the server at {self.host} did not {doing} within {self._server.timeout_s} s",
            "Raise server.timeout_s, or lower server.concurrency: requests may wait in line.",
        )


def _key(server: Server) -> str | None:
    """The key, from the environment; None where none is named."""
    if server.key_env is None:
        return None
    # A secret is often kept with a line end. Any other one requests would quote in its error.
    key = os.environ.get(server.key_env, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise BackendUnavailableError(
            f"the environment variable {server.key_env} holds no key for the server",
            f"Set {server.key_env}, or remove key_env from quant-gate.yaml.",
        )
    return key


def _require_private(server: Server, host: str) -> None:
    """Refuse to send prompts and a key in the clear over what others can read."""
    parts = urlsplit(server.url)
    if parts.scheme == "https" or server.plain_http:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise BackendUnavailableError(
            f"the server's host {plain(host)} has no address", "Check server.url."
        ) from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not all(address.is_private for address in addresses):
        raise SettingsError(
            f"server.url leads to {plain(host)} by plain http, beyond the private network",
            "Use https://, or set plain_http: true where nobody else can listen.",
        )


def _asked_wait_s(header: str | None) -> float | None:
    """Seconds that a Retry-After asks for; None where it asks for none that can be read."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(header)) if header else None
    except (InvalidHeader, ValueError, OverflowError):
        return None


def _words(content: bytes) -> str:
    """The server's own words about a refusal, made plain; empty where it has none."""
    try:
        said: Any = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "detail", "message", "msg"):
        if isinstance(said, list) and said:
            said = said[0]
        if isinstance(said, dict):
            said = said.get(name, said)
    return plain(said, limit=MOST_QUOTED_CHARS) if isinstance(said, str) else ""
