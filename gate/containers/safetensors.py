"""The safetensors container: an 8-byte length, a JSON header, the data.

Source: https://huggingface.co/docs/safetensors/index#format
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from gate.checkpoint import (
    DTYPE_BITS,
    LFS_MAGIC,
    Header,
    Problem,
    Store,
    TensorInfo,
    lfs_problem,
)
from gate.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

HEADER_MAX_BYTES = 100 * 2**20
"""The reference reader's own limit."""

NAME_MAX = 1024
"""Characters of a tensor's name: the longest public ones have about 120."""

RANK_MAX = 64
"""Dimensions of a tensor: torch's own limit."""

FIRST_BYTES = 1 << 15
"""Read at once: it holds the header of most files, and costs a remote reader one request."""

FIELDS = frozenset({"dtype", "shape", "data_offsets"})
INTEGER = frozenset({int})

RAW_DTYPES = {
    "BOOL": "uint8", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16",
    "I32": "int32", "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16",
    "F32": "float32", "F64": "float64", "BF16": "uint16", "C64": "complex64",
}  # fmt: skip
"""What numpy maps; everything else is mapped as bytes."""


class Safetensors:
    """Reads *.safetensors by mapping; nothing is copied until used."""

    suffix = ".safetensors"
    index_suffix: str | None = ".safetensors.index.json"

    def read_header(self, store: Store, name: str) -> Header:
        """Read the header of a file, with everything that is wrong with it."""
        size = store.size(name)
        start = store.read(name, 0, FIRST_BYTES)
        if start[: len(LFS_MAGIC)] == LFS_MAGIC:
            return Header(problems=(lfs_problem(name),))
        if len(start) < 8:
            return Header(problems=(_truncated(name, size, 8),))
        (length,) = struct.unpack("<Q", start[:8])
        if length > HEADER_MAX_BYTES:
            return _unreadable(name, f"claims a header of {length:,} bytes")
        if 8 + length > size:
            return Header(problems=(_truncated(name, size, 8 + length),))
        rest = store.read(name, len(start), 8 + length) if 8 + length > len(start) else b""
        try:
            entries = json.loads(bytes(start[8 : 8 + length]) + rest, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            return _unreadable(name, f"has a header that is not JSON: {error}")
        if not isinstance(entries, dict):
            return _unreadable(name, "has a header that is not a JSON object")
        return _header(name, entries, data_start=8 + length, file_bytes=size)

    def read(self, store: Store, info: TensorInfo) -> "np.ndarray":
        """One tensor's raw codes, not copied where the store maps the file."""
        import numpy as np

        begin, end = info.data_offsets
        raw = np.frombuffer(store.read(info.file, begin, end), np.uint8)
        if len(raw) < end - begin:
            raise CheckpointError(
                f"{info.file} ends before tensor {info.name} does",
                f"Upload or download {info.file} again.",
            )
        if info.dtype in RAW_DTYPES:
            return raw.view(RAW_DTYPES[info.dtype]).reshape(info.shape)
        shape = info.shape
        if shape:
            shape = (*shape[:-1], shape[-1] * DTYPE_BITS[info.dtype] // 8)
        return raw.reshape(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"{counts.most_common(1)[0][0]!r} stands in it twice")
    return value


def _header(name: str, entries: dict[str, Any], data_start: int, file_bytes: int) -> Header:
    metadata = entries.pop("__metadata__", {})
    tensors, problems = [], []
    for tensor, entry in entries.items():
        try:
            tensors.append(_tensor(tensor, entry, name, data_start))
        except ValueError as error:
            problems.append(_problem(name, f"tensor {tensor[:NAME_MAX]!r}: {error}"))
    problems += _layout_problems(name, tensors, data_start)
    end = max((info.data_offsets[1] for info in tensors), default=data_start)
    if end != file_bytes and not problems:
        problems.append(_truncated(name, file_bytes, end))
    return Header(tuple(tensors), metadata if isinstance(metadata, dict) else {}, tuple(problems))


def _tensor(tensor: str, entry: Any, file: str, data_start: int) -> TensorInfo:
    """One header entry, checked.

    Raises:
        ValueError: It contradicts itself.
    """
    if type(entry) is not dict:
        raise ValueError("its header entry is not an object")
    if len(tensor) > NAME_MAX:
        raise ValueError(f"its name has {len(tensor):,} characters")
    if not tensor.isascii():
        tensor.encode()  # a lone surrogate can be neither printed nor stored
    missing = FIELDS - entry.keys()
    if missing:
        raise ValueError(f"its header entry lacks {', '.join(sorted(missing))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if type(dtype) is str else None
    if bits is None:
        raise ValueError(f"unknown dtype {str(dtype)[:40]!r}")
    if not (_are_sizes(shape, RANK_MAX) and _are_sizes(offsets, 2) and len(offsets) == 2):
        raise ValueError("its shape or its data_offsets are no lists of sizes")
    begin, end = offsets
    if bits < 8 and bits * (shape[-1] if shape else 1) % 8:
        raise ValueError(f"{dtype} {shape} does not fill whole bytes")
    needed = math.prod(shape) * bits // 8
    if needed != end - begin:
        raise ValueError(f"{dtype} {shape} takes {needed:,} bytes, its offsets {end - begin:,}")
    return TensorInfo(tensor, dtype, tuple(shape), (data_start + begin, data_start + end), file)


def _are_sizes(value: Any, most: int) -> bool:
    """Written for speed: a header may have 180,000 entries."""
    return (
        type(value) is list
        and len(value) <= most
        and INTEGER.issuperset(map(type, value))
        and (not value or (min(value) >= 0 and max(value) < 2**62))
    )


def _layout_problems(name: str, tensors: list[TensorInfo], data_start: int) -> Iterator[Problem]:
    """Ranges must follow one another from the header on without gap or overlap."""
    expected = data_start
    for info in sorted(tensors, key=attrgetter("data_offsets")):
        if info.data_offsets[0] != expected:
            begin = info.data_offsets[0] - data_start
            yield _problem(
                name,
                f"tensor {info.name} begins at byte {begin:,} of the data, "
                f"not at {expected - data_start:,}",
                info.name,
            )
            return
        expected = info.data_offsets[1]


def _problem(name: str, message: str, tensor: str | None = None) -> Problem:
    return Problem(
        "header-unreadable", f"{name}: {message}", "Export the checkpoint again.", name, tensor
    )


def _unreadable(name: str, message: str) -> Header:
    return Header(problems=(_problem(name, message),))


def _truncated(name: str, size: int, needed: int) -> Problem:
    what = "ends early" if size < needed else "is longer than its header says"
    return Problem(
        "shard-truncated",
        f"{name} {what}: {size:,} bytes where the header asks for {needed:,}",
        f"Upload or download {name} again.",
        file=name,
    )
