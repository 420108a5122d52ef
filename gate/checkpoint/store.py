"""Where a checkpoint's files lie: the contract `Store`, and the local directory."""

import mmap
import os
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

COPY_BYTES = 1 << 16
"""Mapping a file costs more than reading so little of it."""

OPEN_FILES = 64
"""Kept open at a time: a checkpoint may have thousands of shards."""


class Store(Protocol):
    """The files of one checkpoint, read by byte ranges; nothing outside it can be named."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every entry of the checkpoint's own directory, sorted; not all can be read."""
        ...

    def refusal(self, name: str) -> str | None:
        """Why an entry is not read (`is no file`, ...); None for a file inside the checkpoint."""
        ...

    def size(self, name: str) -> int:
        """Bytes in a file.

        Raises:
            OSError: It cannot be found.
        """
        ...

    def read(self, name: str, begin: int = 0, end: int | None = None) -> memoryview:
        """Bytes `begin` to `end` of a file, or fewer where it ends before.

        Raises:
            OSError: It cannot be read.
        """
        ...

    def plan(self, name: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Tell which bytes of a file will be read, so that a remote one is asked but once."""
        ...


class Directory:
    """A local directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = lru_cache(maxsize=OPEN_FILES)(self._opened)

    def __reduce__(self) -> tuple[type["Directory"], tuple[Path]]:
        """Another process opens its files itself."""
        return Directory, (self.path,)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """See `Store.names`."""
        return tuple(sorted(entry.name for entry in self.path.iterdir()))

    def refusal(self, name: str) -> str | None:
        """See `Store.refusal`."""
        if escapes(self.path, name):
            return "leads out of the checkpoint's directory"
        return None if is_file(self.path / name) else "is no file"

    def size(self, name: str) -> int:
        """See `Store.size`."""
        return (self.path / name).stat().st_size

    def read(self, name: str, begin: int = 0, end: int | None = None) -> memoryview:
        """See `Store.read`; long ranges are mapped, not copied."""
        file = self._open(name).fileno()
        if end is not None and end - begin <= COPY_BYTES:
            return memoryview(os.pread(file, max(end - begin, 0), begin))
        size = os.fstat(file).st_size
        last = size if end is None else min(end, size)
        if last - begin <= COPY_BYTES:
            return memoryview(os.pread(file, max(last - begin, 0), begin))
        page = begin - begin % mmap.ALLOCATIONGRANULARITY
        whole = mmap.mmap(file, last - page, access=mmap.ACCESS_READ, offset=page)
        return memoryview(whole)[begin - page :]

    def plan(self, name: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Nothing to do: the operating system reads ahead."""

    def _opened(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")


def is_file(path: Path) -> bool:
    """Whether a regular file can be found there, through links; False for an impossible name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than the file system allows, or with a NUL
        return False


def escapes(root: Path, name: str) -> bool:
    """Whether `name`, taken from untrusted JSON or a link, leads out of `root`.

    A link into the blob store of the same hub cache entry stays inside: that is how
    `huggingface_hub` lays out a snapshot.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return True
    try:
        target = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL in the name, a link to itself
        return True
    if target.is_relative_to(root.resolve()):
        return False
    blobs = root.resolve().parent.parent / "blobs"
    return not (root.resolve().parent.name == "snapshots" and target.is_relative_to(blobs))
