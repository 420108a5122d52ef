"""The GGUF container: key-values, then tensors in ggml's types, all described in one header.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gate import ggml
from gate.checkpoint import LFS_MAGIC, Header, Problem, Store, TensorInfo, lfs_problem
from gate.containers.gguf_header import (
    EndsEarlyError,
    MalformedError,
    RawHeader,
    TensorEntry,
    read_raw_header,
)
from gate.containers.safetensors import RAW_DTYPES
from gate.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_ALIGNMENT = 32

NUMBERED = re.compile(r".+-(\d{5})-of-(\d{5})\.gguf")
"""How llama.cpp names the files of one model."""


class Gguf:
    """Reads *.gguf by ranges: the header, and each tensor's blocks when asked."""

    suffix = ".gguf"
    index_suffix: str | None = None

    def read_header(self, store: Store, name: str) -> Header:
        """Read the header of a file, with everything that is wrong with it."""
        if bytes(store.read(name, 0, len(LFS_MAGIC))) == LFS_MAGIC:
            return Header(problems=(lfs_problem(name),))
        size = store.size(name)
        try:
            raw = read_raw_header(store, name)
        except MalformedError as error:
            return Header(problems=(_unreadable(name, str(error)),))
        except EndsEarlyError as error:
            return Header(problems=(_truncated(name, size, error.needed),))
        alignment = raw.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            return Header(problems=(_unreadable(name, f"has alignment {alignment!r}"),))
        return _header(name, raw, size, alignment)

    def read(self, store: Store, info: TensorInfo) -> "np.ndarray":
        """One tensor's raw codes; blocks as bytes, their bytes in place of the columns."""
        import numpy as np

        begin, end = info.data_offsets
        raw = np.frombuffer(store.read(info.file, begin, end), np.uint8)
        if len(raw) < end - begin:
            raise CheckpointError(
                f"{info.file} ends before tensor {info.name} does",
                f"Upload or download {info.file} again.",
            )
        if not ggml.is_quantized(info.dtype):
            return raw.view(RAW_DTYPES[info.dtype]).reshape(info.shape)
        block = ggml.block(info.dtype)
        if block is None or not info.shape or info.shape[-1] % block.weights:
            return raw
        return raw.reshape((*info.shape[:-1], info.shape[-1] // block.weights * block.nbytes))


def _header(name: str, raw: RawHeader, size: int, alignment: int) -> Header:
    data_start = raw.end + -raw.end % alignment
    ends = _ends(raw.tensors, max(size - data_start, 0))
    tensors: dict[str, TensorInfo] = {}
    problems = list(_split_problems(name, raw.metadata))
    for entry in raw.tensors:
        if entry.name in tensors:
            problems.append(_unreadable(name, f"names tensor {entry.name} twice", entry.name))
            continue
        dtype = ggml.type_name(entry.type)
        nbytes = _nbytes(entry, dtype)
        if nbytes is None and (block := ggml.block(dtype)):
            problems.append(_not_divisible(name, entry, dtype, block.weights))
        length = ends[entry.offset] - entry.offset if nbytes is None else nbytes
        begin = data_start + entry.offset
        shape = tuple(reversed(entry.dimensions))
        tensors[entry.name] = TensorInfo(entry.name, dtype, shape, (begin, begin + length), name)
    problems += _layout_problems(name, list(tensors.values()), data_start, alignment)
    needed = max((info.data_offsets[1] for info in tensors.values()), default=raw.end)
    if needed > size:
        problems.append(_truncated(name, size, needed))
    return Header(tuple(tensors.values()), raw.metadata, tuple(problems))


def _nbytes(entry: TensorEntry, dtype: str) -> int | None:
    """Bytes that a tensor takes; None where its type's blocks are not known, or do not fit."""
    block = ggml.block(dtype)
    columns, *rows = entry.dimensions or (1,)
    if block is None or columns % block.weights:
        return None
    return columns // block.weights * block.nbytes * math.prod(rows)


def _not_divisible(name: str, entry: TensorEntry, dtype: str, weights: int) -> Problem:
    columns = entry.dimensions[0] if entry.dimensions else 1
    return Problem(
        "row-not-divisible",
        f"{entry.name} has rows of {columns:,}; {dtype} stores {weights} weights together",
        "Quantize this tensor with a type of smaller blocks, such as Q8_0 or IQ4_NL.",
        name,
        entry.name,
    )


def _ends(tensors: list[TensorEntry], end: int) -> Mapping[int, int]:
    """Where the bytes reserved for a tensor end at most, by the offset at which it begins."""
    offsets = sorted({entry.offset for entry in tensors})
    return dict(pairwise([*offsets, max([end, *offsets[-1:]])]))


def _layout_problems(
    name: str, tensors: list[TensorInfo], data_start: int, alignment: int
) -> Iterator[Problem]:
    """Tensors must follow one another, each at the next multiple of the alignment."""
    expected = data_start
    for info in tensors:
        begin, end = info.data_offsets
        if begin != expected:
            yield Problem(
                "tensor-misplaced",
                f"{info.name} begins at byte {begin - data_start:,} of the data, not at "
                f"{expected - data_start:,}, where the one before it ends",
                f"Write {name} again: each tensor needs all of its type's bytes, padded to "
                f"{alignment}.",
                name,
                info.name,
            )
        expected = end + -end % alignment


def _split_problems(name: str, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    """A file of a series must be numbered in its name as in its keys."""
    count, number = metadata.get("split.count", 1), metadata.get("split.no", 0)
    named = NUMBERED.fullmatch(name)
    said = (number + 1, count) if type(count) is int and type(number) is int else None
    if count in (0, 1) and named is None:
        return
    if named is None or said != (int(named[1]), int(named[2])):
        yield Problem(
            "split-incomplete",
            f"{name} says that it is number {number!r}, counted from 0, of {count!r} files",
            "Give the files the names that llama-gguf-split gave them: "
            "NAME-00001-of-00003.gguf and so on.",
            name,
        )


def _unreadable(name: str, message: str, tensor: str | None = None) -> Problem:
    return Problem(
        "header-unreadable", f"{name} {message}", "Convert the model again.", name, tensor
    )


def _truncated(name: str, size: int, needed: int) -> Problem:
    return Problem(
        "shard-truncated",
        f"{name} ends early: {size:,} bytes where the header asks for {needed:,}",
        f"Upload or download {name} again.",
        file=name,
    )
