"""Distributions on disk: one file beside a stored result, called by its SHA-256.

Token ids take the fewest bytes that hold them and log-probabilities 16 bits: 390 bytes a token for
64 tokens of a large vocabulary, before they are compressed.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gate.drift.top_tokens import Sequences, TopTokens
from gate.errors import BaselineError
from gate.records import Distributions, Source, write_bytes

HINT = "Make the baseline again, and keep the files beside it: gate eval REFERENCE -o BASELINE"

MOST_BYTES = 2**30
"""Of one file, compressed or not, and of what a model is asked for by it."""

MOST_WIDTH = 1 << 20
"""Tokens of one sequence."""

MALFORMED = (
    ValueError, KeyError, EOFError, OSError, RuntimeError, MemoryError, SyntaxError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What zipfile and numpy raise on files that are none of ours."""

ARRAYS = ("token_ids", "first", "length", "top_ids", "logprobs", "rest")


def path(directory: Path, record: Distributions) -> Path:
    """Where distributions lie."""
    return directory / f"{record.digest}.npz"


def keep(directory: Path, name: str, source: Source, top: TopTokens) -> Distributions:
    """Write distributions beside a result.

    Raises:
        GateError: The directory cannot be written.
    """
    out = io.BytesIO()
    np.savez_compressed(out, **arrays(top))
    content = out.getvalue()
    record = Distributions(
        name=name,
        source=source,
        k=top.ids.shape[1],
        tokens=len(top.ids),
        digest=hashlib.sha256(content).hexdigest(),
    )
    write_bytes(path(directory, record), content)
    return record


def arrays(top: TopTokens) -> dict[str, Any]:
    """What the file holds, by name; sequences one after the other, without what fills them up."""
    ids, first, length = top.sequences
    written = np.arange(ids.shape[1]) < length[:, None]
    return {
        "token_ids": _narrow(ids[written]),
        "first": first.astype(np.uint32),
        "length": length.astype(np.uint32),
        "top_ids": _narrow(top.ids),
        "logprobs": top.logprobs,
        "rest": top.rest,
    }


def load(directory: Path, record: Distributions) -> TopTokens:
    """Read distributions, within bounds and only if they are what was stored.

    Raises:
        BaselineError: The file is missing, another one, or damaged.
    """
    file = path(directory, record)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BaselineError(f"{file} is larger than any stored distributions", HINT)
        content = file.read_bytes()
    except OSError as error:
        raise BaselineError(
            f"the distributions {file} of the baseline cannot be read: {error.strerror}", HINT
        ) from error
    if hashlib.sha256(content).hexdigest() != record.digest:
        raise BaselineError(f"{file} is not the file that the baseline was stored with", HINT)
    try:
        return _read(content, record)
    except MALFORMED as error:
        raise BaselineError(f"{file} holds no stored distributions: {error}", HINT) from error


def _read(content: bytes, record: Distributions) -> TopTokens:
    """The arrays of a file, each of the size that the record says.

    Raises:
        ValueError: One is of another type or shape; and what zipfile and numpy raise.
    """
    tokens, k = record.tokens, record.k
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in ARRAYS):
            raise ValueError("other arrays than expected")
        length = _array(archive, "length", "u", (None,)).astype(np.int64)
        first = _array(archive, "first", "u", length.shape).astype(np.int64)
        if not len(length) or (first < 1).any() or (length <= first).any():
            raise ValueError("a sequence without scored tokens")
        width = int(length.max())
        if width > MOST_WIDTH or len(length) * width * max(8, 4 * k) > MOST_BYTES:
            raise ValueError("sequences longer than any")
        if int((length - first).sum()) != tokens:
            raise ValueError(f"not {tokens} scored tokens")
        flat = _array(archive, "token_ids", "u", (int(length.sum()),))
        ids = np.zeros((len(length), width), np.int64)
        ids[np.arange(width) < length[:, None]] = flat
        top = TopTokens(
            Sequences(ids, first, length),
            _array(archive, "top_ids", "u", (tokens, k)),
            _array(archive, "logprobs", "f", (tokens, k)),
            _array(archive, "rest", "f", (tokens,)),
        )
    if not (np.isfinite(top.logprobs).all() and np.isfinite(top.rest).all()):
        raise ValueError("a log-probability that is no number")
    return top


def _array(
    archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int | None, ...]
) -> np.ndarray:
    """One array whose header is looked at before anything is allocated.

    Args:
        kind: `u` for token ids of 16 or 32 bits, `f` for float16.
        shape: None where any length will do.

    Raises:
        ValueError: It is of another type or shape.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > MOST_BYTES:
        raise ValueError(f"{name} is too large")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} has an unknown header")
        found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        allowed = {"u": ("<u2", "<u4"), "f": ("<f2",)}[kind]
        fits = len(found) == len(shape) and all(
            want is None or have == want for have, want in zip(found, shape, strict=True)
        )
        if fortran or dtype.str not in allowed or not fits or min(found, default=0) < 0:
            raise ValueError(f"{name} is {dtype} of shape {found}")
        size = int(np.prod(found, dtype=object)) * dtype.itemsize
        if size > info.file_size:
            raise ValueError(f"{name} is cut off")
        content = file.read(size)
    return np.frombuffer(content, dtype).reshape(found)


def _narrow(ids: np.ndarray) -> np.ndarray:
    """Token ids in 16 bits where they fit, else in 32."""
    small = not ids.size or int(ids.max()) < 1 << 16
    return ids.astype("<u2" if small else "<u4")
