"""Files of one commit, written where nobody else writes; nothing is checked out."""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from gate import git
from gate.errors import GitError, SettingsError

LINK = "120000"
MOST_LINKS = 8
MOST_FILES = 10_000
MOST_FILE_BYTES = 128 * 2**20
MOST_BYTES = 512 * 2**20
LFS_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n"
    rb"(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,15})\n?"
)
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""

POINTER_BYTES = 1024
SPLIT_HINT = "Keep what the settings name in a directory without other files."


class Snapshot:
    """The tree of a commit.

    Args:
        repository: That holds it.
        commit: By its whole name.
        environment: For Git LFS, see `git.Repository.run`.

    Attributes:
        entries: Path from the repository's root to its entry; submodules are left out.
        contents: Path to SHA-256 of everything that was written so far.
    """

    def __init__(
        self, repository: git.Repository, commit: str, environment: Mapping[str, str] = git.NONE
    ) -> None:
        self.repository, self.commit, self.environment = repository, commit, environment
        self.entries = {
            entry.path: entry for entry in repository.tree(commit) if entry.type == "blob"
        }
        self.contents: dict[str, str] = {}

    def write(self, paths: Iterable[str], directory: Path) -> None:
        """Write files of the commit below a directory, each once.

        A link is written as the file that it leads to in the same commit; a Git LFS pointer as
        the file that it stands for.

        Raises:
            SettingsError: A path or link leads out, or the files are too many or too large.
            GitError: A file is not in this clone, or its LFS object cannot be had.
        """
        fresh = [path for path in dict.fromkeys(paths) if path not in self.contents]
        if len(fresh) > MOST_FILES:
            raise SettingsError(
                f"the settings of commit {self.commit[:12]} name {len(fresh):,} files", SPLIT_HINT
            )
        objects = {path: self._followed(path) for path in fresh}
        blobs = self.repository.blobs(objects.values(), MOST_FILE_BYTES)
        written = 0
        for path, sha in objects.items():
            content = self._fetched(path, self._content(path, sha, blobs))
            written += len(content)
            if written > MOST_BYTES:
                raise SettingsError(
                    f"the settings of commit {self.commit[:12]} name more than "
                    f"{MOST_BYTES / 2**20:.0f} MiB",
                    SPLIT_HINT,
                )
            target = directory.joinpath(*_parts(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            self.contents[path] = hashlib.sha256(content).hexdigest()

    def refuse_linked(self, path: str) -> None:
        """Refuse a path on the way to which a directory is a link.

        Raises:
            SettingsError: Naming the link.
        """
        for parent in (path, *map(str, PurePosixPath(path).parents)):
            if parent in self.entries and self.entries[parent].mode == LINK:
                raise SettingsError(
                    f"{parent} is a link in commit {self.commit[:12]}, and {path} leads through it",
                    "Name the directory itself in the settings.",
                )

    def _followed(self, path: str) -> str:
        """The object that a path means, links to files of the commit followed."""
        at = path
        for _ in range(MOST_LINKS):
            entry = self.entries.get(at)
            if entry is None:
                break
            if entry.mode != LINK:
                return entry.sha
            target = self.repository.blobs([entry.sha], POINTER_BYTES).get(entry.sha, b"/")
            at = posixpath.normpath(
                posixpath.join(posixpath.dirname(at), target.decode("utf-8", "surrogateescape"))
            )
        raise SettingsError(
            f"{path} is a link in commit {self.commit[:12]} that leads to no file of it",
            "Replace it by the file that is meant.",
        )

    def _content(self, path: str, sha: str, blobs: dict[str, bytes]) -> bytes:
        if sha not in blobs:
            raise GitError(
                f"{path} of commit {self.commit[:12]} is not in this clone, or is larger than "
                f"{MOST_FILE_BYTES / 2**20:.0f} MiB",
                "Fetch the commit with its files, without --filter; keep large files in Git LFS.",
            )
        return blobs[sha]

    def _fetched(self, path: str, content: bytes) -> bytes:
        """What a Git LFS pointer stands for; anything else as it is."""
        pointer = LFS_POINTER.fullmatch(content) if len(content) <= POINTER_BYTES else None
        if pointer is None:
            return content
        oid, size = pointer[1].decode(), int(pointer[2])
        what = f"{path} of commit {self.commit[:12]} is stored in Git LFS"
        if size > MOST_FILE_BYTES:
            raise SettingsError(f"{what} and takes {size / 2**20:,.0f} MiB", SPLIT_HINT)
        hint = f"Install git-lfs and fetch it: git lfs fetch origin {self.commit} -I '{path}'"
        try:
            fetched = self.repository.run(
                "lfs", "smudge", "--", path, stdin=content, environment=self.environment
            )
        except GitError as error:
            raise GitError(f"{what} and cannot be had: {error.message}", hint) from error
        if hashlib.sha256(fetched).hexdigest() != oid:
            raise GitError(f"{what}, and what that holds is something else", hint)
        return fetched


def _parts(path: str) -> list[str]:
    """The names on a path; Git allows none that leads elsewhere, and this does not rely on it."""
    parts = path.split("/")
    if not all(part not in {"", ".", ".."} for part in parts):
        raise SettingsError(f"{path} is no path of a file", "Rename it.")
    return parts
