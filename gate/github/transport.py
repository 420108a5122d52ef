"""Requests to GitHub's API: where the token goes, how long is waited, what is repeated."""

import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from gate import __version__, web
from gate.errors import PublishError
from gate.github import refusal
from gate.github.refusal import Call, Reply
from gate.reports.wording import plain

if TYPE_CHECKING:
    import requests

API_VERSION = "2022-11-28"
MOST_REPLY_BYTES = 20_000_000
MOST_REDIRECTS = 5
ATTEMPTS = 4
TIMEOUT_S = 20.0


class Transport:
    """A session with one API, within a budget of time.

    Args:
        api_url: As GITHUB_API_URL has it. The token goes to its origin and nowhere else.
        budget_s: Seconds that all requests together may take, with all waiting.
        pause_s: Seconds from one write to the next, and on which repeating is based.

    Raises:
        PublishError: The address or the token cannot be used.
    """

    def __init__(self, api_url: str, token: str, *, budget_s: float, pause_s: float) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        self._api_url = api_url.rstrip("/")
        self._origin = web.origin(self._api_url)
        if self._origin is None:
            raise PublishError(
                f"the address of GitHub's API cannot be used: {plain(api_url)}",
                "Set GITHUB_API_URL to an address such as https://api.github.com.",
            )
        # A secret is often kept with a line end. Any other one requests would quote in its error.
        token = token.strip()
        if not re.fullmatch(r"[!-~]+", token):
            raise PublishError(
                "there is no token for GitHub's API, or it is not one",
                "Pass github-token: ${{ github.token }}, or set GITHUB_TOKEN.",
            )
        self._token, self._pause_s = token, pause_s
        self._left_s, self._next_write = budget_s, 0.0
        # A POST is repeated only where it was not received: what it makes would be there twice.
        retry = Retry(
            total=ATTEMPTS - 1,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods={"GET", "PATCH", "DELETE"},
            backoff_factor=pause_s / 2,
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.mount("https://", HTTPAdapter(max_retries=retry))
        self._session.mount("http://", HTTPAdapter(max_retries=retry))
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": API_VERSION,
                "User-Agent": f"quant-gate/{__version__}",
            }
        )

    def send(
        self, call: Call, payload: Any = None, *, limit_bytes: int = MOST_REPLY_BYTES
    ) -> Reply:
        """Make a request, wait where GitHub asks for it, and return a reply of success.

        Raises:
            PublishError: Anything else.
        """
        import requests
        from urllib3.exceptions import HTTPError

        began = time.monotonic()
        try:
            reply = self._patiently(call, payload, limit_bytes, began + self._left_s)
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise PublishError(
                f"GitHub was asked to {call.doing}, and {web.reason(error)}: {self._api_url}",
                "Check the network, the proxy and GITHUB_API_URL, and run this job again.",
                uncertain=call.method == "POST",
            ) from error
        finally:
            ended = time.monotonic()
            self._left_s -= ended - began
            if call.method != "GET":
                self._next_write = ended + self._pause_s
        if 200 <= reply.status < 300:
            return reply
        raise refusal.error(call, reply)

    def _patiently(self, call: Call, payload: Any, limit_bytes: int, deadline: float) -> Reply:
        if call.method != "GET":
            time.sleep(max(0, min(self._next_write, deadline) - time.monotonic()))
        for attempt in range(ATTEMPTS):
            reply = self._follow(call, payload, limit_bytes, deadline)
            wait_s = refusal.wait_s(call, reply, attempt)
            if wait_s is None:
                return reply
            if time.monotonic() + wait_s >= deadline:
                break
            time.sleep(wait_s)
        said = refusal.said(reply) or "it gives no reason"
        raise PublishError(
            f"GitHub limits requests and did not {call.doing}: {said} ({reply.status})",
            f"Run this job again in {wait_s:.0f} seconds or later.",
            status=429,
        )

    def _follow(self, call: Call, payload: Any, limit_bytes: int, deadline: float) -> Reply:
        """The reply at the end of redirects; a write follows those that keep its method."""
        url = urljoin(f"{self._api_url}/", call.path)
        if web.origin(url) != self._origin:
            raise PublishError(
                f"GitHub named a further page on another host, and it was not read: {call.doing}",
                "Check GITHUB_API_URL: the API must name its pages by the same address.",
            )
        for _ in range(MOST_REDIRECTS):
            reply = self._once(call, url, payload, limit_bytes, deadline)
            location = reply.headers.get("Location")
            if not 300 <= reply.status < 400 or location is None:
                return reply
            url = urljoin(url, location)
            kept = reply.status in (307, 308) and web.origin(url) == self._origin
            if call.method != "GET" and not kept:
                return reply
        return reply

    def _once(self, call: Call, url: str, payload: Any, limit_bytes: int, deadline: float) -> Reply:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise _too_slow(call)
        with self._session.request(
            call.method,
            url,
            json=payload,
            auth=self._authorize,
            allow_redirects=False,
            stream=True,
            timeout=min(TIMEOUT_S, left_s / ATTEMPTS),
        ) as response:
            content = self._content(call, response, limit_bytes, deadline)
            following = response.links.get("next", {}).get("url")
            return Reply(response.status_code, response.headers, content, following)

    def _content(
        self, call: Call, response: "requests.Response", limit_bytes: int, deadline: float
    ) -> bytes:
        try:
            return web.body(response, limit_bytes, deadline)
        except TimeoutError as error:
            raise _too_slow(call) from error
        except web.TooLargeError as error:
            raise PublishError(
                f"GitHub was asked to {call.doing}; its reply is {error} and was not read",
                "Make what is asked for smaller, or check GITHUB_API_URL.",
            ) from error

    def _authorize(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Add the token where it may go; being set also keeps a .netrc from being used."""
        if web.origin(request.url or "") == self._origin:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _too_slow(call: Call) -> PublishError:
    return PublishError(
        f"the time for GitHub's API was used up, and it did not {call.doing}",
        "Look at https://www.githubstatus.com and run this job again.",
        uncertain=call.method == "POST",
    )
