"""Read the header of a GGUF file: nothing in it is trusted, and little of it is kept.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gate.checkpoint import Store
from gate.ggml import LongArray

MAGIC = b"GGUF"
VERSIONS = (2, 3)

HEADER_MAX_BYTES = 256 * 2**20
"""Public headers, the vocabulary included, have up to 30 MB."""
TENSORS_MAX = 1 << 18
KEYS_MAX = 1 << 16
KEY_MAX_BYTES = (1 << 16) - 1
TEXT_MAX_BYTES = 16 * 2**20
"""Of all strings that are kept, taken together; chat templates have some kilobytes."""
ELEMENTS_MAX = 1 << 21
"""Of all arrays of strings, taken together: a vocabulary and its merges have 600,000."""
DIMENSIONS_MAX = 4
"""Source: `GGML_MAX_DIMS`."""
SIZE_MAX = 1 << 62
NAME_MAX = 127
"""Bytes of a tensor's name: the most that any build of ggml takes (`GGML_MAX_NAME`)."""

KEPT_NUMBERS, KEPT_STRINGS = 4096, 256
"""Longer arrays are not kept, only measured."""
KEPT_NUMBERS_MAX = 1 << 20
"""Of all arrays, taken together."""

FIRST_CHUNK, MOST_CHUNK = 1 << 16, 1 << 20
"""Bytes read at a time, doubling from the first to the most."""

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Value type to its code in `struct`."""
STRING, ARRAY = 8, 9


class MalformedError(Exception):
    """The header contradicts itself or the format."""


class EndsEarlyError(Exception):
    """The file ends before its header does; `needed` is the least size that it would have."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class TensorEntry(NamedTuple):
    """A tensor as the header describes it.

    Attributes:
        dimensions: Innermost first.
        type: ggml's number.
        offset: From the start of the data.
    """

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class RawHeader:
    """Everything that a header says.

    Attributes:
        end: Bytes of the header, without the padding that follows.
    """

    version: int
    metadata: dict[str, Any]
    tensors: list[TensorEntry]
    end: int


def read_raw_header(store: Store, name: str) -> RawHeader:
    """Read a header, a chunk at a time.

    Raises:
        OSError: The file cannot be read.
        MalformedError: It is no header, or none that could be read safely.
        EndsEarlyError: The file ends within it.
    """
    cursor = _Cursor(store, name)
    if (magic := cursor.take(4)) != MAGIC:
        raise MalformedError(f"begins with {magic!r}, not {MAGIC!r}")
    version = cursor.number("I")
    if version and version & 0xFFFF == 0:
        raise MalformedError("is big-endian: only llama.cpp on a big-endian machine reads it")
    if version not in VERSIONS:
        raise MalformedError(f"is GGUF version {version}; runtimes read 2 and 3")
    tensors = _bounded(cursor.number("Q"), TENSORS_MAX, "tensors")
    keys = _bounded(cursor.number("Q"), KEYS_MAX, "keys")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text(KEY_MAX_BYTES, "a key")
        if key in metadata:
            raise MalformedError(f"has the key {key!r} twice")
        metadata[key] = cursor.value(cursor.number("I"))
    return RawHeader(version, metadata, [_tensor(cursor) for _ in range(tensors)], cursor.position)


def _tensor(cursor: "_Cursor") -> TensorEntry:
    name = cursor.text(NAME_MAX, "a tensor's name")
    rank = _bounded(cursor.number("I"), DIMENSIONS_MAX, f"dimensions of {name!r}")
    dimensions = cursor.numbers("Q", rank)
    if not all(0 < size < SIZE_MAX for size in dimensions):
        raise MalformedError(f"gives {name!r} the dimensions {dimensions}")
    return TensorEntry(name, dimensions, cursor.number("I"), cursor.number("Q"))


def _bounded(count: int, most: int, what: str) -> int:
    if count > most:
        raise MalformedError(f"claims {count:,} {what}; at most {most:,} are read")
    return count


class _Cursor:
    """Takes one thing after another from a file.

    Attributes:
        position: Of the next byte.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._size = store.size(name)
        self._read: Callable[[int, int], memoryview] = partial(store.read, name)
        self._chunk: memoryview = memoryview(b"")
        self._begin = 0
        self._next = FIRST_CHUNK
        self._text_left, self._elements_left = TEXT_MAX_BYTES, ELEMENTS_MAX
        self._numbers_left = KEPT_NUMBERS_MAX
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        at = self._seek(count)
        self.position += count
        return bytes(self._chunk[at : at + count])

    def number(self, code: str) -> Any:
        """The next number, of this code in `struct`."""
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        """The next numbers."""
        layout = f"<{count}{code}"
        size = struct.calcsize(layout)
        at = self._seek(size)
        self.position += size
        return struct.unpack_from(layout, self._chunk, at)

    def text(self, most: int, what: str) -> str:
        """The next string, of at most so many bytes."""
        raw = self._raw_text(min(most, self._text_left), what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MalformedError(f"has {what} that is not UTF-8: {raw[:40]!r}") from None

    def value(self, kind: int) -> Any:
        """The next value of this type; a long array's size only."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self._raw_text(self._text_left, "a string").decode(errors="replace")
        if kind == ARRAY:
            return self._array(self.number("I"), self.number("Q"))
        raise MalformedError(f"has a value of type {kind}, which GGUF has not")

    def _raw_text(self, most: int, what: str) -> bytes:
        raw = self.take(_bounded(self.number("Q"), most, f"bytes in {what}"))
        self._text_left -= len(raw)
        return raw

    def _array(self, kind: int, length: int) -> list[Any] | LongArray:
        if kind in NUMBERS:
            code = NUMBERS[kind]
            if length <= min(KEPT_NUMBERS, self._numbers_left):
                self._numbers_left -= length
                return list(self.numbers(code, length))
            begin = self.position
            self._skip(length * struct.calcsize(f"<{code}"))
            return LongArray(kind, length, begin, self.position)
        if kind != STRING:  # an array of arrays among them: no runtime reads one
            raise MalformedError(f"has an array of values of type {kind}")
        self._elements_left -= _bounded(length, self._elements_left, "strings in arrays")
        if length > KEPT_STRINGS:
            begin = self.position
            self._skip_strings(length)
            return LongArray(kind, length, begin, self.position)
        return [self.value(kind) for _ in range(length)]

    def _skip(self, count: int) -> None:
        self.position += count
        self._require(self.position)

    def _skip_strings(self, count: int) -> None:
        """Read only how long each is."""
        length_at = struct.Struct("<Q").unpack_from
        position, begin, chunk = self.position, self._begin, self._chunk
        for _ in range(count):
            at = position - begin
            if at + 8 > len(chunk):
                self.position = position
                at = self._seek(8)
                begin, chunk = self._begin, self._chunk
            position += 8 + length_at(chunk, at)[0]
        self.position = position
        self._require(position)

    def _seek(self, count: int) -> int:
        """Where in the chunk the next bytes begin, having read so many of them."""
        at = self.position - self._begin
        if at + count <= len(self._chunk):
            return at
        self._require(self.position + count)
        end = self.position + max(count, self._next)
        self._next = min(2 * self._next, MOST_CHUNK)
        self._chunk, self._begin = self._read(self.position, end), self.position
        if len(self._chunk) < count:  # it became shorter since its size was asked
            raise EndsEarlyError(self.position + count)
        return 0

    def _require(self, end: int) -> None:
        if end > HEADER_MAX_BYTES:
            raise MalformedError(f"claims a header of more than {HEADER_MAX_BYTES:,} bytes")
        if end > self._size:
            raise EndsEarlyError(end)
