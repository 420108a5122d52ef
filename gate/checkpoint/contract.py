"""What a checkpoint is, and the contract `Container`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gate.checkpoint.store import Directory, Store

if TYPE_CHECKING:
    import numpy as np

LFS_MAGIC = b"version https://git-lfs"

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per stored element. Source: https://github.com/huggingface/safetensors (`Dtype`)."""


class TensorInfo(NamedTuple):
    """One tensor as its header describes it (names as in a safetensors header).

    Attributes:
        dtype: safetensors' name, for example `F8_E4M3`; in GGUF files also ggml's, such as `Q4_K`.
        shape: Outermost dimension first.
        data_offsets: First byte and end, counted from the start of the file.
        file: The file's name, relative to the checkpoint.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    file: str

    @property
    def numel(self) -> int:
        """Stored elements (two FP4 values count as one U8)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.data_offsets[1] - self.data_offsets[0]


@dataclass(frozen=True)
class Problem:
    """A defect found while opening; `rule` is the id of the rule that reports it."""

    rule: str
    message: str
    fix: str
    file: str | None = None
    tensor: str | None = None


@dataclass(frozen=True)
class Header:
    """What one weight file holds."""

    tensors: tuple[TensorInfo, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class Container(Protocol):
    """One kind of weight file."""

    suffix: str
    """File name ending, with the dot."""
    index_suffix: str | None
    """Ending of the JSON file that maps tensors to shards, after the stem; None for none."""

    def read_header(self, store: Store, name: str) -> Header:
        """Read what a file holds.

        Bad bytes are problems of the header, never exceptions.

        Raises:
            OSError: The file cannot be read.
        """
        ...

    def read(self, store: Store, info: TensorInfo) -> "np.ndarray":
        """One tensor: raw codes (uint8 for F8 and F4, uint16 for BF16), shape `info.shape`.

        Raises:
            CheckpointError: The file ends before the tensor does.
        """
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration and weights, opened by their headers.

    Attributes:
        source: What the user named: a path or `org/name`.
        store: Where its files are read.
        path: Its directory; for a remote checkpoint only its name.
        revision: The hub's commit, if it came from there.
        config: config.json, `{}` if unreadable.
        quantization_config: config.json's own declaration (also from `text_config`).
        hf_quant_config: The file of that name, either on-disk shape.
        tensors: Name to header entry, in file order.
        metadata: What the weight files say beside their tensors, such as GGUF's key-values.
        weight_map: The index's map, None for a single file.
        children: Checkpoints in subdirectories: separate ones, not part of this.
        complete: False where the user named some of its files only.
        problems: What was wrong while opening.
    """

    source: str
    store: Store
    path: Path
    revision: str | None
    config: Mapping[str, Any]
    quantization_config: Mapping[str, Any] | None
    hf_quant_config: Mapping[str, Any] | None
    generation_config: Mapping[str, Any] | None
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any]
    weight_map: Mapping[str, str] | None
    files: tuple[str, ...]
    weight_files: tuple[str, ...]
    children: tuple[Path, ...]
    problems: tuple[Problem, ...]
    container: Container | None
    complete: bool = True

    def read(self, info: TensorInfo) -> "np.ndarray":
        """One tensor's raw codes; see `Container.read`."""
        assert self.container is not None, "a checkpoint with tensors has a container"
        return self.container.read(self.store, info)

    @property
    def whole_file(self) -> str | None:
        """The file that describes the model, the first of a series; None where config.json does.

        So GGUF files do: they hold tokenizer, chat template and configuration as well.
        """
        whole = self.container is not None and self.container.index_suffix is None
        return min(self.weight_files, default=None) if whole else None

    @property
    def local(self) -> bool:
        """Whether the weights lie on this machine; of a remote checkpoint only scales are read."""
        return isinstance(self.store, Directory)

    @property
    def broken_files(self) -> frozenset[str]:
        """Weight files whose data cannot be trusted to be where the header says."""
        rules = {"shard-truncated", "header-unreadable", "shard-missing", "tensor-misplaced"}
        return frozenset(
            p.file
            for p in self.problems
            if p.file
            and (p.rule in rules or (p.rule == "lfs-pointer" and p.file in self.weight_files))
        )

    @property
    def quantization_pointer(self) -> str:
        """Where config.json holds `quantization_config`, as a JSON pointer."""
        nested = self.config.get("quantization_config") is None
        return "/text_config/quantization_config" if nested else "/quantization_config"

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's part of config.json (itself unless multimodal)."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config


def lfs_problem(name: str) -> Problem:
    """The finding for a file that Git LFS has not fetched."""
    return Problem(
        "lfs-pointer",
        f"{name} is a Git LFS pointer, not the file itself",
        f'Run: git lfs pull --include "{name}"',
        file=name,
    )
