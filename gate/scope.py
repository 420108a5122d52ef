"""What the settings say about a change: which checkpoints count, which files are policy."""

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gate.errors import SettingsError
from gate.git import Repository
from gate.policy import named
from gate.records import ChangedCheckpoint
from gate.settings import DEFAULT, DEFAULT_FILE, Settings, covers, parse
from gate.trees import Tree, is_link

MAX_BYTES = 2**20
"""A larger settings file is not read."""


class Scope(NamedTuple):
    """The settings before and after a change.

    A checkpoint counts where either of them covers it: a change may widen what is judged, and
    cannot take itself out of it.

    Attributes:
        root: Directory of the settings file in the repository, `.` for the root: globs are
            relative to it.
        file: The settings file in the repository; None where it lies outside.
        base, head: None where a commit has no settings; those that cannot be read leave nothing
            out.
        directories: Of both commits' checkpoints, `.` for the root.
    """

    root: str
    file: str | None
    base: Settings | None
    head: Settings | None
    directories: frozenset[str]

    @classmethod
    def read(
        cls, repository: Repository, settings_file: Path | None, base: Tree, head: Tree
    ) -> "Scope":
        """Both settings, from the commits; a file that no commit has, from the disk.

        Raises:
            SettingsError: Those of the judged commit are wrong, or the named file does not exist.
        """
        directories = frozenset(name or "." for name in base.models.keys() | head.models.keys())
        path = (settings_file or repository.root / DEFAULT_FILE).absolute()
        file = os.path.relpath(path, repository.root)
        if file.startswith(".."):
            kept = _from_disk(path, required=True)
            return cls(".", None, kept, kept, directories)
        name = PurePosixPath(file).as_posix()
        found = [tree.files.get(name) for tree in (base, head)]
        blobs = repository.blobs((sha for sha in found if sha), MAX_BYTES)
        before, after = (blobs.get(sha) if sha else None for sha in found)
        if after is None:
            required = settings_file is not None and found[0] is None
            latter = _from_disk(path, required=required, listed=found[1])
        else:
            latter = parse(after, PurePosixPath(name))
        former = _before(before, name) if found[0] else None
        return cls(PurePosixPath(name).parent.as_posix(), name, former, latter, directories)

    def covers(self, path: str, paths: Sequence[str]) -> bool:
        """Whether a checkpoint counts.

        Args:
            path: Of the checkpoint; or a pin, which only `paths` can leave out.
            paths: Globs relative to the repository's root; none for all.
        """
        # A file that is a whole model is also what its directory is.
        names = [path] if path in self.directories else [path, posixpath.dirname(path) or "."]
        if paths and not any(covers(glob, name) for glob in paths for name in names):
            return False
        if path in self._pinned(self.base) | self._pinned(self.head):
            return True
        known = [_globs(settings) for settings in (self.base, self.head) if settings is not None]
        relative = [posixpath.relpath(name, self.root) for name in names]
        return not known or any(
            not globs or any(covers(glob, name) for glob in globs for name in relative)
            for globs in known
        )

    def pins(self) -> Iterator[ChangedCheckpoint]:
        """Checkpoints of the hub whose pin changed; `org/name` at another revision is modified."""
        before, after = self._pinned(self.base), self._pinned(self.head)
        gone = {repository: pin for pin, repository in before.items() if pin not in after}
        for pin, repository in after.items():
            if pin not in before:
                earlier = gone.pop(repository, None)
                yield ChangedCheckpoint(
                    path=pin, change="modified" if earlier else "added", previous=earlier
                )
        for pin in gone.values():
            yield ChangedCheckpoint(path=pin, change="removed")

    def policy_files(self, changed: Iterable[str]) -> list[str]:
        """Those of the changed files that settings, baselines and tasks are made of."""
        wanted = [named(settings) for settings in (self.base, self.head) if settings is not None]
        relative = {path: posixpath.relpath(path, self.root) for path in changed}
        return [
            path
            for path, inside in relative.items()
            if path == self.file or any(one.holds(inside) for one in wanted)
        ]

    def _pinned(self, settings: Settings | None) -> dict[str, str]:
        """Pin to its repository."""
        rules = settings.checkpoints if settings is not None else ()
        pinned = ((rule.path, rule.pinned) for rule in rules if rule.path not in self.directories)
        return {path: pin[0] for path, pin in pinned if pin is not None}


def _before(content: bytes | None, name: str) -> Settings:
    """The settings before; where they cannot be read, they leave nothing out."""
    try:
        return parse(content, PurePosixPath(name)) if content is not None else DEFAULT
    except SettingsError:
        return DEFAULT


def _from_disk(path: Path, *, required: bool, listed: str | None = None) -> Settings | None:
    """Settings of the working tree, where the judged commit does not hold them in this clone.

    Args:
        listed: What the commit has in their place.

    Raises:
        SettingsError: They are wrong, missing though required, or a link: what a change links to
            must not end in a message.
    """
    if listed and is_link(listed):
        raise SettingsError(f"{path.name} is a link", "Replace it by the file that is meant.")
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        if required:
            raise SettingsError(
                f"{path} cannot be read: {error}", "Name a readable file with --settings."
            ) from error
        return None


def _globs(settings: Settings) -> list[str]:
    """What limits the checkpoints; none for all."""
    return [rule.path for rule in settings.checkpoints if rule.pinned is None]
