"""GitHub's REST API, as far as the gate asks it."""

import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from gate.errors import GateError, PublishError
from gate.github.refusal import Call, Reply
from gate.github.replies import (
    Artifact,
    ArtifactPage,
    Comment,
    CommitComparison,
    IssueEvent,
    LabelEvent,
    Permission,
    PullRequest,
    Role,
    Tree,
    TreeEntry,
    User,
    WorkflowRun,
    read,
)
from gate.github.transport import Transport

__all__ = [
    "Artifact",
    "Client",
    "Comment",
    "LabelEvent",
    "Permission",
    "PullRequest",
    "State",
    "TreeEntry",
    "WorkflowRun",
]

MOST_PAGES = 200
PER_PAGE = 100

COMMENT = "pull-requests: write"
PULLS = "pull-requests: read"
STATUS = "statuses: write"
CONTENTS = "contents: read"
ACTIONS = "actions: read"
METADATA = "metadata: read"

T = TypeVar("T")
State = Literal["pending", "success", "failure", "error"]


class Client:
    """One repository at GitHub's API: github.com, GitHub Enterprise Server, or alike.

    Nothing is asked before a method is called. A write is at least `pause_s` after the one
    before; what GitHub limits is asked again when it says; all of it within the budget.

    Args:
        api_url: As GITHUB_API_URL has it.
        repository: `owner/name`.
        budget_s: Seconds that all requests together may take, with all waiting.
        pause_s: Seconds between writes, as GitHub asks of its clients.

    Raises:
        PublishError: The address, the token or the name cannot be used. All methods raise it
            where GitHub refuses, is not reached, or replies with what its API does not have.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        repository: str,
        *,
        budget_s: float = 120,
        pause_s: float = 1,
    ) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
            raise PublishError(
                f"{repository!r} is no repository of GitHub", "Name it as owner/name."
            )
        self.repository = repository
        self._transport = Transport(api_url, token, budget_s=budget_s, pause_s=pause_s)

    def comments(self, issue: int) -> Iterator[Comment]:
        """All comments, the oldest first, page by page."""
        path = f"issues/{issue:d}/comments?per_page={PER_PAGE}"
        call = self._get(path, f"list the comments on pull request {issue}", PULLS)
        return self._pages(TypeAdapter(list[Comment]), call)

    def create_comment(self, issue: int, body: str) -> Comment:
        """Comment on a pull request.

        Raises:
            PublishError: With `uncertain`, where the comment may be there: look before you repeat.
        """
        path = self._path(f"issues/{issue:d}/comments")
        call = Call("POST", path, f"comment on pull request {issue}", COMMENT)
        return read(TypeAdapter(Comment), call, self._transport.send(call, {"body": body}))

    def update_comment(self, comment: int, body: str) -> Comment | None:
        """Replace a comment's text; None where it was deleted meanwhile."""
        path = self._path(f"issues/comments/{comment:d}")
        call = Call("PATCH", path, f"update comment {comment}", COMMENT)
        reply = self._unless_missing(call, {"body": body})
        return None if reply is None else read(TypeAdapter(Comment), call, reply)

    def delete_comment(self, comment: int) -> None:
        """Remove a comment; one that is gone already is as good."""
        path = self._path(f"issues/comments/{comment:d}")
        self._unless_missing(Call("DELETE", path, f"delete comment {comment}", COMMENT))

    def viewer(self) -> str | None:
        """Whose token it is; None for an App's, such as that of a workflow."""
        call = Call("GET", "user", "say whose token this is", METADATA)
        try:
            return read(TypeAdapter(User), call, self._transport.send(call)).login
        except PublishError as error:
            if error.status in (403, 404):
                return None
            raise

    def set_status(
        self, sha: str, state: State, context: str, description: str, target_url: str | None
    ) -> None:
        """Set a commit's status; the newest of a context counts, so setting it twice is harmless.

        Args:
            description: At most 140 characters.
        """
        path = self._path(f"statuses/{quote(sha, safe='')}")
        call = Call("POST", path, f"set the status {context} of commit {sha}", STATUS)
        payload = {"state": state, "context": context, "description": description}
        if target_url is not None:
            payload["target_url"] = target_url
        try:
            self._transport.send(call, payload)
        except PublishError as error:
            if not error.uncertain:
                raise
            self._transport.send(call, payload)

    def pull_request(self, number: int) -> PullRequest:
        """A pull request as it is now."""
        call = self._get(f"pulls/{number:d}", f"read pull request {number}", PULLS)
        return read(TypeAdapter(PullRequest), call, self._transport.send(call))

    def pull_requests_of(
        self, sha: str, *, head_owner: str | None = None, head_ref: str | None = None
    ) -> list[PullRequest]:
        """Pull requests that a commit belongs to, by number.

        GitHub finds those of forks only by the branch: they are listed where `head_owner` and
        `head_ref` are given and their head is this very commit.
        """
        kind = TypeAdapter(list[PullRequest])
        path = f"commits/{quote(sha, safe='')}/pulls?per_page={PER_PAGE}"
        doing = f"list the pull requests of commit {sha}"
        found = {pull.number: pull for pull in self._pages(kind, self._get(path, doing, PULLS))}
        if head_owner is not None and head_ref is not None:
            head = quote(f"{head_owner}:{head_ref}", safe="")
            path = f"pulls?state=all&head={head}&per_page={PER_PAGE}"
            for pull in self._pages(kind, self._get(path, doing, PULLS)):
                if pull.head_sha == sha:
                    found[pull.number] = pull
        return [found[number] for number in sorted(found)]

    def label_events(self, number: int) -> list[LabelEvent]:
        """Every label set and taken off, in order."""
        path = f"issues/{number:d}/events?per_page={PER_PAGE}"
        call = self._get(path, f"read who set the labels of pull request {number}", PULLS)
        return [
            LabelEvent(event.label, event.actor, event.created_at, event.event == "labeled")
            for event in self._pages(TypeAdapter(list[IssueEvent]), call)
            if event.event in ("labeled", "unlabeled") and event.label is not None
        ]

    def permission(self, user: str) -> Permission:
        """What a user may do with the repository; "none" for somebody unknown."""
        path = self._path(f"collaborators/{quote(user, safe='')}/permission")
        call = Call("GET", path, f"say what {user} may do", METADATA)
        reply = self._unless_missing(call)
        return "none" if reply is None else read(TypeAdapter(Role), call, reply).permission

    def tree(self, sha: str) -> list[TreeEntry]:
        """All that a commit holds, directories included.

        Raises:
            GateError: GitHub cuts the listing short: more than 100,000 entries or 7 MB.
        """
        path = f"git/trees/{quote(sha, safe='')}?recursive=1"
        call = self._get(path, f"list the files of commit {sha}", CONTENTS)
        found = read(TypeAdapter(Tree), call, self._transport.send(call))
        if found.truncated:
            raise GateError(
                f"commit {sha} holds more files than GitHub's API lists",
                "Check the repository out with fetch-depth: 0, so that git compares the commits.",
            )
        return found.tree

    def merge_base(self, base: str, head: str) -> str:
        """The newest commit that both come from."""
        # Files are listed on the first page only, and they may be many.
        names = quote(f"{base}...{head}", safe="")
        path = f"compare/{names}?per_page=1&page=2"
        call = self._get(path, f"find where {head} left {base}", CONTENTS)
        return read(TypeAdapter(CommitComparison), call, self._transport.send(call)).merge_base

    def workflow_run(self, run: int) -> WorkflowRun:
        """A run of a workflow as it is now."""
        call = self._get(f"actions/runs/{run:d}", f"read workflow run {run}", ACTIONS)
        return read(TypeAdapter(WorkflowRun), call, self._transport.send(call))

    def artifacts(self, run: int) -> list[Artifact]:
        """What a run stored."""
        path = f"actions/runs/{run:d}/artifacts?per_page={PER_PAGE}"
        call = self._get(path, f"list the artifacts of workflow run {run}", ACTIONS)
        pages = self._replies(call)
        kind = TypeAdapter(ArtifactPage)
        return [found for reply in pages for found in read(kind, call, reply).artifacts]

    def download_artifact(self, artifact: int, limit_bytes: int) -> bytes:
        """An artifact's archive, which is a ZIP file, unless it is larger than the limit."""
        path = f"actions/artifacts/{artifact:d}/zip"
        call = self._get(path, f"download artifact {artifact}", ACTIONS)
        return self._transport.send(call, limit_bytes=limit_bytes).content

    def _path(self, path: str) -> str:
        return f"repos/{self.repository}/{path}"

    def _get(self, path: str, doing: str, permission: str) -> Call:
        return Call("GET", self._path(path), doing, permission)

    def _unless_missing(self, call: Call, payload: Any = None) -> Reply | None:
        """The reply, or None for what GitHub does not have."""
        try:
            return self._transport.send(call, payload)
        except PublishError as error:
            if error.status in (404, 410):
                return None
            raise

    def _replies(self, call: Call) -> Iterator[Reply]:
        for _ in range(MOST_PAGES):
            reply = self._transport.send(call)
            yield reply
            if reply.following is None:
                return
            call = call._replace(path=reply.following)
        raise PublishError(
            f"there are more than {MOST_PAGES} pages, and GitHub was not asked to go on: "
            f"{call.doing}",
            "Remove what is not needed any more: nothing is written without having read all.",
        )

    def _pages(self, kind: TypeAdapter[list[T]], call: Call) -> Iterator[T]:
        for reply in self._replies(call):
            yield from read(kind, call, reply)
