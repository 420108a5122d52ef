"""The one comment on a pull request that every run of the same gate updates.

Two runs may write at the same time, comments may be deleted by hand, and anyone may copy a marker
into a comment of their own. So: only comments of the token's own author count, all pages are read,
what was created is looked up again, the oldest is kept and shows the newest run's verdict.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from gate.errors import PublishError
from gate.github import marker
from gate.github.marker import Marker, Note, Shown

if TYPE_CHECKING:
    from gate.github.api import Client, Comment

Mode = Literal["always", "changes", "failures", "never"]

ACTIONS_BOT = "github-actions[bot]"
MOST_BODY = 60_000
"""UTF-16 units and bytes; GitHub refuses more than 65,536 characters."""

ROUNDS = 4
"""Looks at the comments: each creation, deletion by others or uncertain reply costs one."""


class Post(NamedTuple):
    """What a run has to say.

    Attributes:
        shown: Its verdict.
        render: Markdown from the Markdown of the earlier verdicts, within so many characters.
        substance: What it says, whichever run says it.
        runs_url: Address to which a run's id is appended.
        quiet: Nothing worth a new comment.
    """

    key: str
    shown: Shown
    render: Callable[[str, int], str]
    substance: str
    runs_url: str
    quiet: bool = False


class Posted(NamedTuple):
    """Where the comment is, if there is one, and what was done about it."""

    url: str | None
    done: Literal["created", "updated", "unchanged", "newer", "not wanted"]


class _Own(NamedTuple):
    """A comment of ours."""

    comment: "Comment"
    note: Note

    @property
    def last(self) -> str | None:
        """The verdict that it shows."""
        return self.note.verdicts[-1].verdict if self.note.verdicts else None


def update(client: "Client", pull_request: int, post: Post, mode: Mode = "always") -> Posted:
    """Bring the comment up to date, and leave exactly one.

    Raises:
        PublishError: GitHub refused, or the comment did not come to rest.
    """
    login = client.viewer()
    authors = {login} if login is not None else {ACTIONS_BOT}
    created: Comment | None = None
    for turn in range(ROUNDS):
        own = _own(client, pull_request, post.key, authors)
        if own:
            posted = _settle(client, own, post, mode)
            if posted is not None:
                return posted._replace(done="created") if created is not None else posted
        elif created is not None:
            # Not listed yet, or deleted since: another one would be a twin either way.
            return Posted(created.html_url, "created")
        elif not _wanted(post, None, mode):
            return Posted(None, "not wanted")
        else:
            created = _create(client, pull_request, post, last=turn == ROUNDS - 1)
            if created is not None and created.author is not None:
                # The token of an App cannot be asked whose it is: its comment tells.
                authors.add(created.author)
    raise PublishError(
        f"the comment on pull request {pull_request} disappeared each time that it was written",
        "Look for another workflow that deletes comments, and run this job again.",
    )


def _create(client: "Client", pull_request: int, post: Post, *, last: bool) -> "Comment | None":
    """A new comment; None where it is not known whether there is one now."""
    try:
        return client.create_comment(pull_request, compose(post, None))
    except PublishError as error:
        if last or not error.uncertain:
            raise
        return None


def compose(post: Post, latest: Note | None) -> str:
    """The comment's body: the hidden lines, then what is shown, earlier verdicts folded below."""
    past = latest.verdicts if latest is not None else ()
    same = (post.shown.run, post.shown.attempt)
    if past and (past[-1].run, past[-1].attempt) == same:
        past = past[:-1]
    verdicts = (*past, post.shown)[-marker.MOST_VERDICTS :]
    hidden = marker.write(Note(_marker(post), verdicts))
    text = post.render(marker.earlier(verdicts, post.runs_url), MOST_BODY - len(hidden) - 2)
    return f"{hidden}\n\n{text}"


def _marker(post: Post) -> Marker:
    digest = hashlib.sha256(post.substance.encode()).hexdigest()[:32]
    return Marker(post.key, post.shown.run, post.shown.attempt, post.shown.sha, digest)


def _own(client: "Client", pull_request: int, key: str, authors: set[str]) -> list[_Own]:
    """Comments of this gate by the token's own author, the oldest first."""
    found = []
    for comment in client.comments(pull_request):
        note = marker.read(comment.body) if comment.author in authors else None
        if note is not None and note.marker.key == key:
            found.append(_Own(comment, note))
    return sorted(found, key=lambda own: own.comment.id)


def _settle(client: "Client", own: list[_Own], post: Post, mode: Mode) -> Posted | None:
    """Let the oldest show the newest verdict, and remove the others; None if it is gone."""
    kept, *twins = own
    latest = max(own, key=lambda each: each.note.marker.order)
    done, body = _due(latest, post, mode)
    if body is None and latest is not kept:
        body = latest.comment.body
    url = kept.comment.html_url
    if body is not None and client.update_comment(kept.comment.id, body) is None:
        return None
    for twin in twins:
        client.delete_comment(twin.comment.id)
    return Posted(url, done)


def _due(
    latest: _Own, post: Post, mode: Mode
) -> tuple[Literal["updated", "unchanged", "newer", "not wanted"], str | None]:
    """What is to be done where `latest` is what is shown, and the new body if there is one."""
    shown, new = latest.note.marker, _marker(post)
    if shown.order > new.order:
        return "newer", None
    if (shown.digest, shown.sha) == (new.digest, new.sha):
        return "unchanged", None
    if not _wanted(post, latest, mode):
        return "not wanted", None
    return "updated", compose(post, latest.note)


def _wanted(post: Post, latest: _Own | None, mode: Mode) -> bool:
    """Whether the settings want this verdict written, given the one that is shown."""
    if mode == "never" or (latest is None and post.quiet):
        return False
    if mode == "changes":
        return latest is None or latest.last != post.shown.verdict
    if mode == "failures":
        return latest is not None or post.shown.verdict not in {"pass", "skipped"}
    return True
