"""What the GitHub of the tests holds, and what is made to go wrong there."""

import threading
import time
from collections import Counter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

READ_ONLY = dict.fromkeys(
    ("actions", "contents", "issues", "metadata", "pull_requests", "statuses"), "read"
)
"""For `State.granted`: what a fork's pull request gets."""


class Value(BaseModel):
    """Anything that is stored as JSON."""

    model_config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Comment(Value):
    """A comment; `app` is the slug of the App whose token wrote it."""

    id: int
    issue: int
    body: str
    author: str
    app: str | None = None
    created_at: str = "2026-01-02T03:04:05Z"
    updated_at: str = "2026-01-02T03:04:05Z"


class Status(Value):
    """A commit status, as it was set."""

    sha: str
    state: str
    context: str = "default"
    description: str | None = None
    target_url: str | None = None
    creator: str = ""


class Pull(Value):
    """A pull request; `head_repository` None: of this repository; "": its fork was deleted."""

    number: int
    state: Literal["open", "closed"] = "open"
    head_sha: str = "a" * 40
    head_ref: str = "change"
    head_repository: str | None = None
    base_sha: str = "b" * 40
    base_ref: str = "main"
    author: str = "octocat"
    labels: list[str] = []


class LabelEvent(Value):
    """A label set on or taken off an issue."""

    issue: int
    label: str
    actor: str = "maintainer"
    at: str = "2026-01-02T03:04:05Z"
    added: bool = True


class Entry(Value):
    """One entry of a tree."""

    path: str
    mode: str = "100644"
    type: str = "blob"
    sha: str = "c" * 40
    size: int | None = 1


class Tree(Value):
    """A recursive listing of a commit."""

    entries: list[Entry] = []
    truncated: bool = False


class Run(Value):
    """A workflow run."""

    id: int
    event: str = "pull_request"
    status: str = "completed"
    conclusion: str | None = "success"
    run_attempt: int = 1
    head_sha: str = "a" * 40
    head_branch: str = "change"
    head_repository: str | None = None
    path: str = ".github/workflows/quant-gate.yml"


class Artifact(Value):
    """A stored archive; its bytes lie on another host."""

    id: int
    run_id: int
    name: str
    content: bytes = b""
    expired: bool = False


class Fault(Value):
    """What goes wrong with the next requests to a route.

    Attributes:
        method, path: Which requests: a method or `*`, and a pattern searched for in the path.
        times: How many of them; -1 for all.
        applies: The request takes effect before it goes wrong.
        together: Wait until that many such requests have come: a race, made certain.
        delay_s: Wait before the reply.
        drop: Close the connection in place of a reply.
        status: Reply with this; None for the reply that there would be.
    """

    method: str = "*"
    path: str = ""
    times: int = 1
    applies: bool = False
    together: int = 1
    delay_s: float = 0
    drop: bool = False
    status: int | None = None
    headers: dict[str, str] = {}
    body: Any = None


class Request(Value):
    """A request that came, and the status that was replied; 0 for a dropped connection.

    Attributes:
        at: Seconds on the monotonic clock.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float
    status: int = 0


class State(Value):
    """One repository, the token that asks, and what happened.

    Attributes:
        viewer: Who writes with the token.
        app: The App whose installation token it is (`GET /user` is then refused); None for a
            person's token.
        token: The only one that is accepted; None for any.
        granted: Permission to "read" or "write"; what is missing there is refused.
        page_size: Items on a page, where less than asked for.
        merge_bases: `base...head` to commit.
        permissions: User to role: admin, maintain, write, triage, read.
        commits: The commits that exist; None for any.
        problems: Where a request or a reply departs from GitHub's description.
        blob_requests: What the host of the archives was asked.
    """

    repository: str = "octo-org/models"
    viewer: str = "github-actions[bot]"
    app: str | None = "github-actions"
    token: str | None = None
    granted: dict[str, str] = dict.fromkeys(READ_ONLY, "write")
    page_size: int = 100
    comments: list[Comment] = []
    statuses: list[Status] = []
    pulls: dict[int, Pull] = {}
    label_events: list[LabelEvent] = []
    permissions: dict[str, str] = {}
    trees: dict[str, Tree] = {}
    merge_bases: dict[str, str] = {}
    commits: list[str] | None = None
    runs: dict[int, Run] = {}
    artifacts: list[Artifact] = []
    faults: list[Fault] = []
    requests: list[Request] = []
    blob_requests: list[Request] = []
    problems: list[str] = []
    last_id: int = 1000
    _lock: threading.RLock = PrivateAttr(default_factory=threading.RLock)
    _arrived: threading.Condition = PrivateAttr(default_factory=threading.Condition)
    _met: Counter[int] = PrivateAttr(default_factory=Counter)

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests of a method to paths that end so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(path)]

    def next_id(self) -> int:
        """An id that is larger than all before."""
        self.last_id += 1
        return self.last_id


def secondary_rate_limit(retry_after_s: int, *, status: int = 403, **where: Any) -> Fault:
    """GitHub's refusal of too many writes in a short time."""
    message = (
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    )
    headers = {"Retry-After": str(retry_after_s)}
    return Fault(status=status, headers=headers, body={"message": message}, **where)


def rate_limited(reset_in_s: float, *, status: int = 403, **where: Any) -> Fault:
    """GitHub's refusal once the hour's requests are used."""
    headers = {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(time.time() + reset_in_s) + 1),
    }
    body = {"message": "API rate limit exceeded for installation ID 1."}
    return Fault(status=status, headers=headers, body=body, **where)
