"""What GitHub refuses: in its words, with the permission that is missing or the time to wait."""

import json
import re
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from gate.errors import PublishError
from gate.reports.wording import plain

MOST_QUOTED_CHARS = 200
UNSAID_WAIT_S = 60.0
"""First wait where GitHub limits without saying for how long; it doubles.

Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""
_ACCEPTED = re.compile(r"([a-z_]+)=(read|write|admin)")


class Call(NamedTuple):
    """A request, and the words for it where it fails.

    Attributes:
        path: Below the API, or the address of a further page.
        doing: What is not done where it fails: "comment on pull request 7".
        permission: What the job's token needs for it, as a workflow has it.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    doing: str
    permission: str


class Reply(NamedTuple):
    """A reply; `following` is the address of the page after this one."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    following: str | None


def error(call: Call, reply: Reply) -> PublishError:
    """What a reply other than success means, and what to do."""
    words, status = said(reply), reply.status
    what = f"GitHub did not {call.doing}: {words or 'it gives no reason'} ({status})"
    if status == 401:
        hint = "Pass a token that has not expired: github-token: ${{ github.token }}."
    elif status in (403, 404) and "not accessible" in words:
        hint = (
            f"Add `{_permission(call, reply)}` to the job's permissions; "
            "on a pull request from a fork the token only reads, whatever they say."
        )
    elif status == 403:
        hint = f"Mend what GitHub names; the token needs `{_permission(call, reply)}`."
    elif status == 404:
        hint = f"Check that it exists, and that the job's permissions have `{call.permission}`."
    elif 300 <= status < 400:
        hint = "Name the repository as it is called now: it has moved."
    elif status >= 500:
        hint = "Look at https://www.githubstatus.com and run this job again."
    else:
        hint = "Mend what GitHub names, and run this job again."
    uncertain = call.method == "POST" and status >= 500
    return PublishError(what, hint, status=status, uncertain=uncertain)


def _permission(call: Call, reply: Reply) -> str:
    """What is missing, as a workflow has it: ours where GitHub agrees."""
    accepted = _ACCEPTED.findall(reply.headers.get("x-accepted-github-permissions", ""))
    named = [f"{name.replace('_', '-')}: {level}" for name, level in accepted]
    return call.permission if call.permission in named or not named else "` or `".join(named)


def wait_s(call: Call, reply: Reply, attempt: int) -> float | None:
    """Seconds to wait before the same request; None where it is not to be repeated."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    headers, status = reply.headers, reply.status
    unsaid = UNSAID_WAIT_S * float(2**attempt)
    if status not in (403, 429) and (status != 503 or call.method == "POST"):
        return None
    if "Retry-After" in headers:
        try:
            return float(Retry().parse_retry_after(headers["Retry-After"]))
        except (InvalidHeader, ValueError, OverflowError):
            return unsaid
    if headers.get("x-ratelimit-remaining") == "0":
        try:
            return max(0.0, int(headers["x-ratelimit-reset"]) - time.time()) + 1
        except (KeyError, ValueError, OverflowError):
            return unsaid
    return unsaid if status == 429 or "secondary rate limit" in said(reply) else None


def said(reply: Reply) -> str:
    """GitHub's own words about a refusal and its first detail, made plain."""
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    detail = first.get("message") if isinstance(first, dict) else first
    words = [word for word in (body.get("message"), detail) if isinstance(word, str) and word]
    return plain(": ".join(words), limit=MOST_QUOTED_CHARS)
