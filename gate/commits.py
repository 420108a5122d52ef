"""The two commits of a change, by git where the clone holds them, else fetched or by the API."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from gate.errors import GateError, GitError
from gate.git import REMOTE, Repository
from gate.trees import Entry

Fetch = Callable[[Sequence[str], int | None], None]
"""Fetches commits with so much history behind them, None for all; as `Repository.fetch`."""

DEPTHS = (64, 1024, None)
"""History that is fetched in turn to find a merge base where no API tells it."""

WHOLE_HISTORY = "Check out the whole history: fetch-depth: 0 for actions/checkout."


class Change(NamedTuple):
    """What to compare.

    Attributes:
        head: Revision that is judged; None only where there is nothing to compare.
        base: Revision that it is compared with.
        since: What `base` stands for. Without one, all that the head holds is new.
    """

    head: str | None
    base: str | None = None
    since: Literal["everything", "merge base", "commit", "nothing"] = "everything"


class Api(Protocol):
    """What GitHub's API tells of commits that are not here."""

    def tree(self, sha: str) -> Iterable[Entry]:
        """Every file of a commit.

        Raises:
            GateError: The API cannot be reached, or leaves files out.
        """
        ...

    def merge_base(self, base: str, head: str) -> str:
        """The best common ancestor of two revisions."""
        ...


class Commits(NamedTuple):
    """Both commits with all of their files.

    Attributes:
        base: None where everything is new.
        source: How they were read, in words.
    """

    base: str | None
    head: str
    base_entries: Sequence[Entry]
    head_entries: Sequence[Entry]
    source: str


def read(
    repository: Repository, change: Change, fetch: Fetch | None = None, api: Api | None = None
) -> Commits:
    """Find and list both commits.

    Args:
        fetch: How to get commits that are not here; None to do without.
        api: Whom to ask where that fails.

    Raises:
        GateError: Neither the clone nor the API tells.
    """
    clone = _Clone(repository, fetch, api)
    head = change.head or "HEAD"
    try:
        return clone.read(head, change)
    except GitError as error:
        if api is None:
            raise
        try:
            return _by_api(api, head, change)
        except GateError as failed:
            raise GitError(
                f"{error.message}; the API does not tell either: {failed.message}", WHOLE_HISTORY
            ) from failed


def _by_api(api: Api, head: str, change: Change) -> Commits:
    base = change.base.removeprefix(f"{REMOTE}/") if change.base else None
    if base is not None and change.since == "merge base":
        base = api.merge_base(base, head)
    before = list(api.tree(base)) if base else []
    return Commits(base, head, before, list(api.tree(head)), "API")


class _Clone:
    """A clone that may lack history."""

    def __init__(self, repository: Repository, fetch: Fetch | None, api: Api | None) -> None:
        self._repository, self._fetch, self._api = repository, fetch, api
        self._fetched = False

    def read(self, head: str, change: Change) -> Commits:
        """Both commits.

        Raises:
            GitError: One of them is not here and cannot be fetched.
        """
        judged = self._commit(head)
        base = self._base(judged, change)
        tree = self._repository.tree
        source = "git, base commit fetched" if self._fetched else "git"
        return Commits(base, judged, tree(base) if base else [], tree(judged), source)

    def _base(self, head: str, change: Change) -> str | None:
        if change.base is None:
            return None
        if change.since == "merge base":
            return self._merge_base(change.base, head)
        return self._commit(change.base)

    def _commit(self, revision: str) -> str:
        found = self._repository.commit(revision)
        if found is None:
            self._get([revision], 1 if self._repository.is_shallow else None)
            found = self._repository.commit(revision)
        if found is None:
            raise GitError(f"this clone does not hold commit {revision}", WHOLE_HISTORY)
        return found

    def _merge_base(self, base: str, head: str) -> str:
        """The merge base; in a shallow clone by the API, or by fetching ever more history."""
        known = self._repository.commit(base)
        found = self._repository.merge_base(known, head) if known else None
        if found:
            return found
        if not self._repository.is_shallow:
            found = self._repository.merge_base(self._commit(base), head)
        else:
            told = self._told(base, head)
            found = self._commit(told) if told else self._deepened(base, head)
        if found is None:
            raise GitError(f"{base} and {head} have no common history", "Name another --base.")
        return found

    def _told(self, base: str, head: str) -> str | None:
        """What the API says; None where there is none that answers."""
        if self._api is None:
            return None
        try:
            return self._api.merge_base(base.removeprefix(f"{REMOTE}/"), head)
        except GateError:
            return None

    def _deepened(self, base: str, head: str) -> str | None:
        for depth in DEPTHS:
            self._get([base, head], depth)
            known = self._repository.commit(base)
            found = self._repository.merge_base(known, head) if known else None
            if found:
                return found
        return None

    def _get(self, revisions: Sequence[str], depth: int | None) -> None:
        """Fetch, unless this clone is to do without."""
        if self._fetch is None:
            raise GitError(f"this clone does not hold commit {revisions[0]}", WHOLE_HISTORY)
        self._fetch(revisions, depth)
        self._fetched = True
