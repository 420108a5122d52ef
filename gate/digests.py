"""SHA-256 of files: streamed, several at once, at the speed of the disk."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

from gate.checkpoint import escapes
from gate.errors import CheckpointError
from gate.records import write_text

HASH_THREADS = 4
"""SHA-256 releases the interpreter; beyond a few files at once the disk is the limit."""

NOT_SHIPPED = frozenset({".git", ".cache"})
"""Directories beside a checkpoint's files that belong to the tools which fetched it."""

STATEMENT = "quant-gate/statement.json"
"""Where `gate push` puts the statement, which cannot speak of itself."""

NOT_JUDGED = frozenset({".gitattributes", STATEMENT})
"""Files at their only place: the hub writes the first into every repository and changes it."""


def shipped(directory: Path) -> tuple[str, ...]:
    """Every file that a checkpoint's directory releases, by its path from there, sorted.

    Raises:
        CheckpointError: A link leads out of the directory, or a directory cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise CheckpointError(f"{error.filename} cannot be read: {error}", "Check the disk.")

    found = []
    for place, folders, names in os.walk(directory, onerror=refuse):
        folders[:] = sorted(set(folders) - NOT_SHIPPED)
        # A link to a directory is not walked into: it is named, and refused below.
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [(Path(place) / name).relative_to(directory) for name in [*names, *links]]
    return tuple(sorted({*map(PurePath.as_posix, found)} - NOT_JUDGED))


def of(directory: Path, names: Iterable[str], known: "Known | None" = None) -> dict[str, str]:
    """Each file's SHA-256, by its name.

    Args:
        directory: The checkpoint.
        names: Paths from there.
        known: Digests that may be taken over where size and time of change are the same.

    Raises:
        CheckpointError: A file cannot be read, or leads out of the checkpoint.
    """

    def content(name: str) -> str:
        path = directory / name
        if escapes(directory, name):
            raise CheckpointError(
                f"{name} leads out of {directory}", "Put the file itself into the checkpoint."
            )
        try:
            if known is not None and (digest := known.get(path)):
                return digest
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}", "Check the file and the disk."
            ) from error
        if known is not None:
            known.put(path, digest)
        return digest

    ordered = sorted(names)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(ordered, pool.map(content, ordered), strict=True))


def different(judged: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Names whose digests are not the same in both, missing and added ones included, sorted."""
    names = sorted(judged.keys() | files.keys())
    return [name for name in names if judged.get(name) != files.get(name)]


class Known:
    """Digests of an earlier run, believed where a file has the same size and time of change.

    Who can change a file can give it back its time: for a mirror that only grows, not for a
    release that somebody else wrote.

    Args:
        path: Where they are kept; unreadable ones are made anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(path.read_bytes())
            self._found = kept if isinstance(kept, dict) else {}

    def get(self, path: Path) -> str | None:
        """The digest of an unchanged file."""
        match self._found.get(str(path.absolute())):
            case [size, changed, str(digest)] if [size, changed] == _stamp(path):
                return digest
        return None

    def put(self, path: Path, digest: str) -> None:
        """Remember a digest."""
        self._found[str(path.absolute())] = [*_stamp(path), digest]

    def save(self) -> None:
        """Keep what is known for the next run."""
        write_text(self.path, json.dumps(self._found))


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
