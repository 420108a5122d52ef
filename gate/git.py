"""Ask git: no shell, no pager, no hooks, and no configuration that is written or left behind."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gate.errors import GitError, SettingsError

SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""A whole object name, SHA-1 or SHA-256."""

REMOTE = "origin"
TIMEOUT_S = 120
FETCH_TIMEOUT_S = 600
NONE: Mapping[str, str] = MappingProxyType({})

# Set by git for its hooks; here they would point to another repository than the one that is named.
_INHERITED = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
     "GIT_PREFIX", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES"}
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
}


class Entry(NamedTuple):
    """A file, link or submodule of a commit.

    Attributes:
        path: From the root, `/` between names; bytes that are no UTF-8 are surrogates.
        mode: Six octal digits: 100644, 100755, 120000 for a link, 160000 for a submodule.
        type: `blob` or `commit`.
    """

    path: str
    mode: str
    type: str
    sha: str


class Repository(NamedTuple):
    """A repository with a work tree, by the directory that holds it."""

    root: Path

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] = NONE,
        timeout_s: int = TIMEOUT_S,
    ) -> bytes:
        """What git prints.

        Args:
            environment: Added to this process's, for example a token in GIT_CONFIG_VALUE_0: it
                reaches git's memory and no file.

        Raises:
            GitError: It fails, in git's words, which leave out the credentials of an address.
        """
        inherited = {k: v for k, v in os.environ.items() if k not in _INHERITED}
        # A work tree of another user, as in a container job, is trusted for this call alone.
        trusted = ["-c", f"safe.directory={self.root}", "-c", f"core.hooksPath={os.devnull}"]
        command = ["git", "-C", str(self.root), *trusted, "--no-pager", *arguments]
        try:
            done = subprocess.run(
                command,
                input=stdin,
                env={**inherited, **_ENVIRONMENT, **environment},
                capture_output=True,
                timeout=timeout_s,
                check=True,
            )
        except FileNotFoundError as error:
            raise GitError("git is not installed", "Install git and run again.") from error
        except subprocess.TimeoutExpired as error:
            raise GitError(
                f"git {arguments[0]} did not end within {timeout_s} s",
                "Check the network and the disk, then run again.",
            ) from error
        except subprocess.CalledProcessError as error:
            raise GitError(
                f"git {arguments[0]} failed in {self.root}: {_said(error.stderr)}",
                f"Run it yourself: git -C {self.root} {arguments[0]}",
            ) from error
        return done.stdout

    def commit(self, revision: str) -> str | None:
        """The commit that a revision means; None where this clone does not hold it."""
        try:
            # No option of git ends so, and none is taken with --verify.
            found = self.run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        except GitError:
            return None
        return found.decode().strip()

    def merge_base(self, base: str, head: str) -> str | None:
        """The best common ancestor of two commits; None where this clone knows none."""
        try:
            return self.run("merge-base", base, head).decode().strip() or None
        except GitError:
            return None

    @property
    def is_shallow(self) -> bool:
        """Whether this clone's history was cut off."""
        return self.run("rev-parse", "--is-shallow-repository").strip() == b"true"

    @property
    def is_partial(self) -> bool:
        """Whether this clone left files out, to fetch them when they are asked for."""
        try:
            return bool(self.run("config", "--get-regexp", r"^remote\..*\.promisor$"))
        except GitError:
            return False

    def tree(self, commit: str) -> list[Entry]:
        """Every file, link and submodule of a commit; nothing is checked out."""
        return parse_tree(self.run("ls-tree", "-r", "-z", "--full-tree", commit))

    def blobs(self, shas: Iterable[str], limit_bytes: int) -> dict[str, bytes]:
        """The contents of those objects that are here and no larger than the limit."""
        wanted = {sha.encode() for sha in shas if SHA.fullmatch(sha)}
        if not wanted:
            return {}
        # In a partial clone git would fetch what it is asked for and lacks, weights among it.
        asked = ["--batch-all-objects", "--unordered"] if self.is_partial else []
        names = b"" if asked else b"".join(sha + b"\n" for sha in wanted)
        sizes = self.run("cat-file", "--batch-check", "--buffer", *asked, stdin=names)
        small = [
            fields[0] + b"\n"
            for line in sizes.splitlines()
            if len(fields := line.split()) == 3
            and fields[0] in wanted
            and fields[1] == b"blob"
            and int(fields[2]) <= limit_bytes
        ]
        return _contents(self.run("cat-file", "--batch", "--buffer", stdin=b"".join(small)))

    def fetch(
        self,
        revisions: Sequence[str],
        depth: int | None = None,
        *,
        environment: Mapping[str, str] = NONE,
    ) -> None:
        """Fetch commits by their names, or branches as `origin/NAME`.

        Args:
            depth: Commits of history, the first included; None for all.
            environment: See `run`: where a token goes.

        Raises:
            GitError: The remote has them not, cannot be reached, or wants other credentials.
        """
        wanted = [_refspec(revision) for revision in revisions]
        shortened = [f"--depth={depth}"] if depth else ["--unshallow"] if self.is_shallow else []
        self.run(
            "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
            "--no-auto-gc", *shortened, REMOTE, *wanted,
            environment=environment, timeout_s=FETCH_TIMEOUT_S,
        )  # fmt: skip


def find(directory: Path) -> Repository:
    """The repository in which a directory lies.

    Raises:
        SettingsError: It lies in none.
    """
    absolute = directory.absolute()
    for candidate in (absolute, *absolute.parents):
        if (candidate / ".git").exists():
            return Repository(candidate)
    raise SettingsError(
        f"{directory} is not in a git repository",
        "Run it in the repository's checkout, or clone it first.",
    )


def parse_tree(listing: bytes) -> list[Entry]:
    """What `git ls-tree -r -z` prints, entry by entry."""
    entries = []
    for record in listing.split(b"\0")[:-1]:
        about, _, path = record.partition(b"\t")
        mode, kind, sha = about.decode("ascii").split()
        entries.append(Entry(path.decode("utf-8", "surrogateescape"), mode, kind, sha))
    return entries


def _contents(batch: bytes) -> dict[str, bytes]:
    """What `git cat-file --batch` prints: a line with name and size, the content, a line end."""
    found = {}
    at = 0
    while at < len(batch):
        end = batch.index(b"\n", at)
        fields = batch[at:end].split()
        if len(fields) != 3:  # `NAME missing`: gone since its size was asked
            at = end + 1
            continue
        start, size = end + 1, int(fields[2])
        found[fields[0].decode("ascii")] = batch[start : start + size]
        at = start + size + 1
    return found


def _refspec(revision: str) -> str:
    """What to ask the remote for; a branch is kept where git itself keeps it."""
    if SHA.fullmatch(revision):
        return revision
    branch = revision.removeprefix(f"{REMOTE}/")
    return f"+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}"


def _said(stderr: bytes) -> str:
    """The first telling line of what git said."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    line = next((line for line in lines if line.startswith(("fatal:", "error:"))), None)
    return (line or next(iter(lines), "it said nothing"))[:300]
