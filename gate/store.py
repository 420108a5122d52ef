"""Results that are kept: at any address that fsspec knows, safe for many writers at once.

Documents lie under their SHA-256, compressed; small entries name them. Nothing that lies there is
ever changed, so writers cannot lose each other's work, a reader sees all of a result or none, and
what was damaged on the way does not match its name.
"""

import gzip
import hashlib
import io
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from gate.errors import BackendUnavailableError, GateError, StoreError
from gate.records import Entry, Kind, Label, parse, write_bytes

MAX_ENTRY_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 1 << 30
"""Of one document or array file, decompressed: a store belongs to more people than this machine."""

UNUSED_FOR = timedelta(days=1)
"""A document that no entry names may belong to a writer who has not named it yet."""

OVERTAKEN = frozenset({409, 412})
"""The hub's answers to a commit that another one came before."""

PAUSES_S = (1, 2, 4, 8, 16)
"""Up to which a writer waits before it tries again."""

DAMAGED = "Remove it and measure again; prune takes what nothing names."

NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-(?P<content>[0-9a-f]{64})\.json")


def at(address: str, root: Path) -> "Store":
    """The store that settings name: a directory is relative to theirs."""
    return Store(address if "://" in address else str(root / address))


class Store:
    """A directory or an object store.

    Args:
        address: A path, or what fsspec takes: `s3://bucket/prefix`, `hf://datasets/org/name`,
            `gs://`, `memory://`.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def put(
        self, label: Label, document: bytes, arrays: Mapping[str, bytes] | None = None
    ) -> Entry:
        """Keep a document; the entry comes last, so that it never names what is not there.

        Args:
            label: What is said of it.
            document: Its bytes.
            arrays: Content of each attached file by its SHA-256.

        Raises:
            StoreError: The store cannot be written.
        """
        attached = dict(arrays or {})
        for digest, content in attached.items():
            self._put_object(digest, content)
        digest = hashlib.sha256(document).hexdigest()
        self._put_object(digest, document)
        named = {"content": digest, "attachments": tuple(sorted(attached))}
        entry = Entry.model_validate(dict(label) | named)
        self._create(self._entry_path(entry), entry.model_dump_json().encode())
        return entry

    def entries(self, kind: Kind, key: str | None = None) -> tuple[Entry, ...]:
        """What is kept, newest first.

        Args:
            kind: Of documents.
            key: Of one model; None for all.

        Raises:
            StoreError: The store, or an entry in it, cannot be read.
        """
        found = self.newest(kind, key)
        return tuple(sorted(found, key=lambda entry: (entry.date, entry.content), reverse=True))

    def newest(self, kind: Kind, key: str | None = None) -> Iterator[Entry]:
        """The same one by one, for whoever needs only the first that fits.

        Raises:
            StoreError: The store, or an entry in it, cannot be read.
        """
        paths = sorted(self._entry_paths(kind, key), key=lambda path: Path(path).name)
        yield from map(self._entry, reversed(paths))

    def document(self, entry: Entry) -> bytes:
        """An entry's document.

        Raises:
            StoreError: It is missing or damaged.
        """
        return self.object(entry.content)

    def object(self, digest: str) -> bytes:
        """What lies under a SHA-256.

        Raises:
            StoreError: It is missing or damaged.
        """
        path = self._object_path(digest)
        self._files.invalidate_cache()
        packed = self._read(path, MAX_DOCUMENT_BYTES)
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
                content = file.read(MAX_DOCUMENT_BYTES + 1)
        except (OSError, EOFError, ValueError) as error:
            raise StoreError(f"{self.shown}/{path} is damaged: {error}", DAMAGED) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(f"{self.shown}/{path} is damaged: it does not match its name", DAMAGED)
        return content

    def remove(self, entry: Entry) -> None:
        """Forget an entry; its document goes with the next `prune`.

        Raises:
            StoreError: It cannot be removed.
        """
        with self._refused("written"):
            self._committed(self._files.rm_file, self._at(self._entry_path(entry)))

    def prune(self, now: datetime | None = None) -> int:
        """Remove documents that no entry names any more; how many.

        Raises:
            StoreError: The store cannot be read or written.
        """
        used: set[str] = set()
        for path in self._entry_paths(None, None):
            entry = self._entry(path)
            used |= {entry.content, *entry.attachments}
        before = (now or datetime.now(UTC)) - UNUSED_FOR
        removed = 0
        with self._refused("written"):
            for path in self._found("objects"):
                if Path(path).name in used or self._changed(path) > before:
                    continue
                self._committed(self._files.rm_file, path)
                removed += 1
        return removed

    @cached_property
    def shown(self) -> str:
        """The address without what may be a secret in it."""
        return re.sub(r"//[^/@]*@", "//", self.address.rstrip("/")).partition("?")[0]

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            scheme = self.address.partition(":")[0]
            raise BackendUnavailableError(
                f"the store {self.shown} needs a package: {error}",
                f"Install what fsspec needs for {scheme}: pip install 'fsspec[{scheme}]'",
            ) from error
        except ValueError as error:
            raise StoreError(
                f"{self.shown} is no store: {error}", "Name a directory or an address."
            ) from error
        return files, str(root).rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _local(self) -> bool:
        return "file" in self._files.protocol

    def _at(self, path: str) -> str:
        return f"{self._opened[1]}/{path}"

    def _object_path(self, digest: str) -> str:
        return f"objects/{digest[:2]}/{digest}"

    def _entry_path(self, entry: Entry) -> str:
        made = datetime.fromisoformat(entry.date).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        return f"entries/{entry.kind}/{entry.key}/{made}-{entry.content}.json"

    def _put_object(self, digest: str, content: bytes) -> None:
        # No time in it: the same content is the same file, whoever wrote it.
        self._create(self._object_path(digest), gzip.compress(content, mtime=0))

    def _create(self, path: str, content: bytes) -> None:
        """Write a file whole or not at all; what is there is the same, unless damaged."""
        at = self._at(path)
        # A listing of before may still name what was pruned since.
        self._files.invalidate_cache()
        with self._refused("written"):
            if self._local:
                write_bytes(Path(at), content)
                return
            try:
                self._committed(self._files.pipe_file, at, content, mode="create")
            except FileExistsError:
                # Written again, it is as young as what a writer is about to name must be.
                old = self._changed(at) < datetime.now(UTC) - UNUSED_FOR / 2
                if old or self._files.size(at) != len(content):
                    self._committed(self._files.pipe_file, at, content)

    def _committed(self, change: Callable[..., None], *arguments: Any, **more: Any) -> None:
        """Change a file, once more where the hub made somebody else's commit first."""
        for pause in PAUSES_S:
            try:
                return change(*arguments, **more)
            except Exception as error:
                response = getattr(error, "response", None)
                if getattr(response, "status_code", None) not in OVERTAKEN:
                    raise
            # Not all of them at the same time again.
            time.sleep(random.uniform(0, pause))  # noqa: S311
        return change(*arguments, **more)

    def _entry_paths(self, kind: Kind | None, key: str | None) -> Iterator[str]:
        place = "/".join(filter(None, ("entries", kind, key)))
        with self._refused("read"):
            yield from (path for path in self._found(place) if NAME.fullmatch(Path(path).name))

    def _entry(self, path: str) -> Entry:
        content = self._read(path.removeprefix(f"{self._opened[1]}/"), MAX_ENTRY_BYTES)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.shown}: {path} is damaged: {error}", DAMAGED) from error
        return parse(value, Entry, Path(path))

    def _found(self, place: str) -> list[str]:
        """Every file below; none where nothing was written yet."""
        self._files.invalidate_cache()
        try:
            return sorted(self._files.find(self._at(place)))
        except FileNotFoundError:
            return []

    def _changed(self, path: str) -> datetime:
        found: datetime = self._files.modified(path)
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def _read(self, path: str, limit: int) -> bytes:
        at = self._at(path)
        with self._refused("read"):
            if self._files.size(at) > limit:
                raise StoreError(f"{self.shown}/{path} is larger than what is kept", DAMAGED)
            found: bytes = self._files.cat_file(at)
        return found

    @contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        """Turn what a file system raises, which may be anything, into an error that names it."""
        try:
            yield
        except GateError:
            raise
        except Exception as error:
            raise StoreError(
                f"the store {self.shown} cannot be {what}: {error}",
                "Check the address, the credentials in the environment, and the connection.",
            ) from error
