"""What started this run on GitHub: the event, and which commits it compares.

The payload is untrusted: branch names, labels and titles are whatever their authors typed.
Source: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gate.commits import Change
from gate.errors import GateError
from gate.git import REMOTE, SHA

PULL_REQUESTS = frozenset({"pull_request", "pull_request_target"})
CHANGES = PULL_REQUESTS | {"merge_group"}
"""Events that are about what somebody proposes: the base commit says by what it is judged."""

QUEUED = re.compile(r"gh-readonly-queue/.+/pr-(\d{1,18})-[0-9a-f]+")
"""The branch of a merge queue; where a group holds several, only the last one is named."""

NO_COMMIT = re.compile(r"0+")
"""What a push tells in place of a commit that is not there."""

MAX_BYTES = 32 * 2**20
"""GitHub delivers at most 25 MB."""


class Event(NamedTuple):
    """What started this run.

    Attributes:
        name: As in GITHUB_EVENT_NAME.
        repository: owner/name.
        base_sha: The base branch's commit; for a push, what the branch was before.
        head_sha: The commit that is judged and reported on.
        fork: Whether the change comes from another repository, so that the token is read-only.
        base_ref, head_ref: Branches without refs/heads/; a tag is refs/tags/NAME.
        label: The one that was set or removed.
        labels: All of the pull request's, when the event happened.
        actor: Whose action it was.
        run_id: The run that judges: the finished one on workflow_run, else this one.
    """

    name: str
    action: str | None
    repository: str | None
    base_sha: str | None
    head_sha: str | None
    pull_request: int | None
    fork: bool
    base_ref: str | None
    head_ref: str | None
    default_branch: str | None
    label: str | None
    labels: tuple[str, ...]
    actor: str | None
    run_id: int | None
    payload: Mapping[str, Any]

    def change(self, *, base: str | None = None, head: str | None = None) -> Change:
        """The commits to compare.

        Args:
            base: Revision that replaces the event's; the merge base with it is taken.
            head: Commit that replaces the event's.

        Raises:
            GateError: The payload lacks what its kind of event always has.
        """
        judged = head or self.head_sha
        if self.name == "workflow_run" or (self.name == "push" and self.payload.get("deleted")):
            return Change(judged, None, "nothing")
        if judged is None:
            raise self._lacks("the commit that is judged")
        if base is not None:
            return Change(judged, base, "merge base")
        if self.name in CHANGES:
            if self.base_sha is None:
                raise self._lacks("the base branch's commit")
            queued = self.name == "merge_group"
            return Change(judged, self.base_sha, "commit" if queued else "merge base")
        return self._pushed(judged) if self.name == "push" else Change(judged)

    def _pushed(self, judged: str) -> Change:
        """Since the push before; a new branch since it left the default branch.

        A tag is a release: what failed under the tag before is still in it.
        """
        if (self.head_ref or "").startswith("refs/tags/"):
            return Change(judged)
        if self.base_sha is not None:
            return Change(judged, self.base_sha, "commit")
        if self.default_branch is None or self.default_branch == self.head_ref:
            return Change(judged)
        return Change(judged, f"{REMOTE}/{self.default_branch}", "merge base")

    def _lacks(self, what: str) -> GateError:
        return GateError(
            f"the {self.name} event does not say {what}",
            "Name both commits: --base REV --head REV",
        )


def read(environ: Mapping[str, str]) -> Event | None:
    """The event of this run; None outside a workflow.

    Args:
        environ: The environment, with GITHUB_EVENT_NAME and GITHUB_EVENT_PATH.

    Raises:
        GateError: The event's file cannot be read.
    """
    name = environ.get("GITHUB_EVENT_NAME")
    if not name:
        return None
    payload = _payload(environ.get("GITHUB_EVENT_PATH"))
    repository = _text(payload, "repository", "full_name") or environ.get("GITHUB_REPOSITORY")
    base_ref, head_ref = _refs(name, payload, environ)
    return Event(
        name=name,
        action=_text(payload, "action"),
        repository=repository,
        base_sha=_commit(payload, BASES.get(name)),
        head_sha=_commit(payload, HEADS.get(name)) or _sha(environ.get("GITHUB_SHA")),
        pull_request=_pull_request(name, payload, head_ref),
        fork=_is_fork(name, payload, repository),
        base_ref=base_ref,
        head_ref=head_ref,
        default_branch=_text(payload, "repository", "default_branch"),
        label=_text(payload, "label", "name"),
        labels=_labels(payload),
        actor=_text(payload, "sender", "login") or environ.get("GITHUB_ACTOR"),
        run_id=_run_id(payload, environ),
        payload=payload,
    )


def own_run_id(environ: Mapping[str, str]) -> int | None:
    """GitHub's number of the run that this process is part of; None elsewhere."""
    own = environ.get("GITHUB_RUN_ID", "")
    return int(own) if own.isascii() and own.isdigit() and len(own) < 19 else None


BASES = {
    "pull_request": ("pull_request", "base", "sha"),
    "pull_request_target": ("pull_request", "base", "sha"),
    "merge_group": ("merge_group", "base_sha"),
    "push": ("before",),
}
HEADS = {
    "pull_request": ("pull_request", "head", "sha"),
    "pull_request_target": ("pull_request", "head", "sha"),
    "merge_group": ("merge_group", "head_sha"),
    "push": ("after",),
    "workflow_run": ("workflow_run", "head_sha"),
}
"""Where the payload of each event has its commits."""


def _payload(path: str | None) -> Mapping[str, Any]:
    """The event's JSON object; none where the runner names no file."""
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            value = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise GateError(
            f"the event in GITHUB_EVENT_PATH cannot be read: {error}",
            "Name both commits: --base REV --head REV",
        ) from error
    return value if isinstance(value, dict) else {}


def _at(payload: Any, *names: str) -> Any:
    for name in names:
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload


def _text(payload: Any, *names: str) -> str | None:
    value = _at(payload, *names)
    return value if isinstance(value, str) and value else None


def _number(payload: Any, *names: str) -> int | None:
    value = _at(payload, *names)
    return value if type(value) is int and 0 < value < 2**63 else None


def _commit(payload: Any, names: tuple[str, ...] | None) -> str | None:
    return _sha(_text(payload, *names)) if names else None


def _sha(text: str | None) -> str | None:
    """A commit's whole name; None for anything else, and for no commit."""
    known = text is not None and SHA.fullmatch(text) and not NO_COMMIT.fullmatch(text)
    return text if known else None


def _refs(
    name: str, payload: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The base branch, and the branch or tag that is judged."""
    if name in PULL_REQUESTS:
        found = (
            _text(payload, "pull_request", "base", "ref"),
            _text(payload, "pull_request", "head", "ref"),
        )
    elif name == "merge_group":
        group = _at(payload, "merge_group")
        found = _text(group, "base_ref"), _text(group, "head_ref")
    elif name == "workflow_run":
        found = None, _text(payload, "workflow_run", "head_branch")
    else:
        found = None, _text(payload, "ref") or environ.get("GITHUB_REF") or None
    base, head = (ref.removeprefix("refs/heads/") if ref else None for ref in found)
    return base, head


def _pull_request(name: str, payload: Mapping[str, Any], head_ref: str | None) -> int | None:
    """Its number; on workflow_run only the API knows, since the payload leaves out forks."""
    if name == "merge_group":
        queued = QUEUED.fullmatch(head_ref or "")
        return int(queued[1]) if queued else None
    return _number(payload, "pull_request", "number")


def _is_fork(name: str, payload: Mapping[str, Any], repository: str | None) -> bool:
    """Whether the change comes from elsewhere; so does one whose repository is gone."""
    if name in PULL_REQUESTS:
        return _text(payload, "pull_request", "head", "repo", "full_name") != repository
    if name == "workflow_run":
        return _text(payload, "workflow_run", "head_repository", "full_name") != repository
    return False


def _labels(payload: Mapping[str, Any]) -> tuple[str, ...]:
    labels = _at(payload, "pull_request", "labels")
    names = (_text(label, "name") for label in (labels if isinstance(labels, list) else ()))
    return tuple(name for name in names if name)


def _run_id(payload: Mapping[str, Any], environ: Mapping[str, str]) -> int | None:
    return _number(payload, "workflow_run", "id") or own_run_id(environ)
