"""Open a checkpoint: configuration and headers, no tensor until asked.

Contract `Container`: how one kind of weight file is read. Opening never raises for a defect of
the checkpoint: it collects `Problem`s, and the rule of the same name reports them.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gate.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    import numpy as np

CONFIG_MAX_BYTES = 64 * 2**20
"""A larger JSON file is not read: the biggest public index has 8 MB."""

LFS_MAGIC = b"version https://git-lfs"
LFS_MAX_BYTES = 1024
"""A pointer is smaller. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""

SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.")
SHARDS_MAX = 4096

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per stored element. Source: https://github.com/huggingface/safetensors (`Dtype`)."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its header describes it (names as in a safetensors header).

    Attributes:
        dtype: safetensors' name, for example `F8_E4M3`.
        data_offsets: First byte and end, counted from the start of the file's data section.
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
    metadata: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class Container(Protocol):
    """One kind of weight file."""

    suffix: str
    """File name ending, with the dot."""
    index_suffix: str
    """Ending of the JSON file that maps tensors to shards, after the stem."""

    def read_header(self, path: Path, name: str) -> Header:
        """Read what `path` (called `name` in the checkpoint) holds; never raises for bad bytes."""
        ...

    def read(self, path: Path, info: TensorInfo) -> "np.ndarray":
        """Map one tensor: raw codes (uint8 for F8 and F4, uint16 for BF16), shape `info.shape`.

        Raises:
            CheckpointError: The file ends before the tensor does.
        """
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A directory with a model's configuration and weights.

    Attributes:
        source: What the user named: a path or `org/name`.
        revision: The hub's commit, if it came from there.
        config: config.json, `{}` if unreadable.
        quantization_config: config.json's own declaration (also from `text_config`).
        hf_quant_config: The file of that name, either on-disk shape.
        tensors: Name to header entry, in file order.
        weight_map: The index's map, None for a single file.
        children: Checkpoints in subdirectories: separate ones, not part of this.
        problems: What was wrong while opening.
    """

    source: str
    path: Path
    revision: str | None
    config: Mapping[str, Any]
    quantization_config: Mapping[str, Any] | None
    hf_quant_config: Mapping[str, Any] | None
    generation_config: Mapping[str, Any] | None
    tensors: Mapping[str, TensorInfo]
    weight_map: Mapping[str, str] | None
    files: tuple[str, ...]
    weight_files: tuple[str, ...]
    children: tuple[Path, ...]
    problems: tuple[Problem, ...]
    container: Container | None

    def read(self, info: TensorInfo) -> "np.ndarray":
        """Map one tensor's raw codes; see `Container.read`."""
        assert self.container is not None, "a checkpoint with tensors has a container"
        return self.container.read(self.path / info.file, info)

    @property
    def broken_files(self) -> frozenset[str]:
        """Weight files whose data cannot be trusted to be where the header says."""
        rules = {"shard-truncated", "header-unreadable", "shard-missing"}
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


def is_checkpoint(path: Path, containers: Sequence[Container]) -> bool:
    """Whether `path` holds a configuration or weights itself."""
    return (path / "config.json").is_file() or any(
        next(path.glob(f"*{container.suffix}"), None) for container in containers
    )


def find_checkpoints(path: Path, containers: Sequence[Container]) -> tuple[Path, ...]:
    """`path` if it is a checkpoint, else the nearest ones below it, sorted.

    Raises:
        SettingsError: `path` does not exist or is not a directory.
    """
    _require_directory(path)
    if is_checkpoint(path, containers):
        return (path,)
    return _children(path, containers)


def open_checkpoint(
    path: Path, containers: Sequence[Container], *, source: str = "", revision: str | None = None
) -> Checkpoint:
    """Open a local checkpoint directory by its headers alone.

    Raises:
        SettingsError: `path` does not exist or is not a directory.
        CheckpointError: `path` holds only other checkpoints.
    """
    _require_directory(path)
    children = _children(path, containers)
    if children and not is_checkpoint(path, containers):
        names = ", ".join(str(child) for child in children)
        raise CheckpointError(
            f"{path} has no config.json; it holds {len(children)} checkpoints: {names}",
            f"Name one of them, for example: gate check {children[0]}",
        )
    problems: list[Problem] = []
    config = _read_json(path, "config.json", "config-json-unreadable", problems, required=True)
    weights = _read_weights(path, containers, problems)
    hf_quant = _read_json(path, "hf_quant_config.json", "quant-config-unreadable", problems)
    files = tuple(sorted(entry.name for entry in path.iterdir() if _is_file(entry)))
    problems += _pointers(path, files, problems)
    config = config or {}
    return Checkpoint(
        source=source or str(path),
        path=path,
        revision=revision,
        config=config,
        quantization_config=_declared(config, problems),
        hf_quant_config=hf_quant,
        generation_config=_read_json(
            path, "generation_config.json", "generation-config-unreadable", problems
        ),
        files=files,
        children=children,
        problems=tuple(problems),
        **weights,
    )


def _require_directory(path: Path) -> None:
    if not path.exists():
        raise SettingsError(
            f"{path} does not exist",
            "Name the directory that holds config.json and the weights, or org/name@revision.",
        )
    if not path.is_dir():
        raise SettingsError(
            f"{path} is a file, not a directory", f"Name its directory: gate check {path.parent}"
        )


def _is_file(path: Path) -> bool:
    """Whether a regular file can be found there, through links; False for an impossible name."""
    try:
        return path.is_file()
    except OSError:  # longer than the file system allows
        return False


def _children(path: Path, containers: Sequence[Container]) -> tuple[Path, ...]:
    """Nearest checkpoints below `path`, sorted, at most four levels down, links not followed."""
    found: list[Path] = []
    level = [path]
    for _ in range(4):
        below = sorted(entry for directory in level for entry in _directories(directory))
        level = []
        for entry in below:
            (found if is_checkpoint(entry, containers) else level).append(entry)
    return tuple(found)


def _directories(path: Path) -> list[Path]:
    """What could hold a checkpoint; nothing where `path` may not be read."""
    if not os.access(path, os.R_OK | os.X_OK):
        return []
    entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def _declared(config: Mapping[str, Any], problems: list[Problem]) -> Mapping[str, Any] | None:
    """config.json's quantization_config, the text model's where the model is multimodal."""
    nested = config.get("text_config")
    declared = config.get("quantization_config")
    if declared is None and isinstance(nested, Mapping):
        declared = nested.get("quantization_config")
    if declared is None or isinstance(declared, Mapping):
        return declared
    problems.append(
        Problem(
            "quant-config-unreadable",
            f"quantization_config is {type(declared).__name__}, not an object",
            "Export the checkpoint again.",
            file="config.json",
        )
    )
    return None


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


def _read_json(
    root: Path, name: str, rule: str, problems: list[Problem], *, required: bool = False
) -> Mapping[str, Any] | None:
    """Read a JSON object, or note under `rule` why not."""
    path = root / name
    if not os.path.lexists(path):
        if required:
            problems.append(
                Problem(
                    rule, f"{name} is missing", f"Copy {name} from the unquantized model.", name
                )
            )
        return None
    problem = None
    try:
        if escapes(root, name):
            problem = "is a link that leads out of the checkpoint"
        elif not path.is_file():
            problem = "is no file"
        elif path.stat().st_size > CONFIG_MAX_BYTES:
            problem = f"has {path.stat().st_size:,} bytes: not a configuration"
        else:
            raw = path.read_bytes()
            if raw.startswith(LFS_MAGIC):
                problems.append(lfs_problem(name))
                return None
            value = json.loads(raw)
            if isinstance(value, dict):
                return value
            problem = f"holds {type(value).__name__}, not a JSON object"
    except (ValueError, RecursionError, OSError) as error:
        problem = f"cannot be read: {error}"
    problems.append(Problem(rule, f"{name} {problem}", "Export the checkpoint again.", file=name))
    return None


def lfs_problem(name: str) -> Problem:
    """The finding for a file that Git LFS has not fetched."""
    return Problem(
        "lfs-pointer",
        f"{name} is a Git LFS pointer, not the file itself",
        f'Run: git lfs pull --include "{name}"',
        file=name,
    )


def _pointers(root: Path, files: Iterable[str], seen: Iterable[Problem]) -> Iterator[Problem]:
    """Git LFS pointers among the files that opening does not read, such as the tokenizer's."""
    known = {problem.file for problem in seen}
    for name in files:
        if name in known or escapes(root, name) or (root / name).stat().st_size > LFS_MAX_BYTES:
            continue
        try:
            raw = (root / name).read_bytes()
        except OSError:
            continue  # whoever needs the file says so
        if raw.startswith(LFS_MAGIC):
            yield lfs_problem(name)


def _read_weights(
    root: Path, containers: Sequence[Container], problems: list[Problem]
) -> dict[str, Any]:
    """The headers of the indexed shards, or of every weight file where there is no index."""
    for container in containers:
        index = _index(root, container)
        names = sorted(entry.name for entry in root.glob(f"*{container.suffix}"))
        if index is None and not names:
            continue
        weight_map = _read_index(root, index, problems) if index else None
        if weight_map is not None:
            counts = Counter(weight_map.values())
        else:
            counts = Counter(_unindexed(names, container.suffix))
        wanted = _shards(root, counts, weight_map is not None, problems)
        tensors: dict[str, TensorInfo] = {}
        for name in wanted:
            header = _read_header(root, name, container)
            problems += header.problems
            for info in header.tensors:
                if info.name not in tensors or (weight_map or {}).get(info.name) == name:
                    tensors[info.name] = info
        if weight_map is not None:
            problems += _index_problems(weight_map, tensors, problems)
        return {
            "tensors": tensors,
            "weight_map": weight_map,
            "weight_files": tuple(wanted),
            "container": container,
        }
    problems.append(_no_weights(root))
    return {"tensors": {}, "weight_map": None, "weight_files": (), "container": None}


def _index(root: Path, container: Container) -> Path | None:
    """The index; `model`'s own where another stands beside it."""
    found = sorted(root.glob(f"*{container.index_suffix}"))
    return next((path for path in found if path.name.startswith("model.")), next(iter(found), None))


def _unindexed(names: Sequence[str], suffix: str) -> Iterator[str]:
    """Weight files without an index: the single file, or every one and the shards that lack."""
    single = f"model{suffix}"
    if single in names:
        yield single
        return
    yield from names
    numbered = [match for name in names if (match := SHARD.match(name))]
    for stem, total in {(match["stem"], match["total"]) for match in numbered}:
        for number in range(1, min(int(total), SHARDS_MAX) + 1):
            name = f"{stem}-{number:05}-of-{total}{suffix}"
            if name not in names:
                yield name


def _read_header(root: Path, name: str, container: Container) -> Header:
    try:
        return container.read_header(root / name, name)
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        fix = f"Make {name} readable, or download it again."
        return Header(problems=(Problem("header-unreadable", message, fix, name),))


def _read_index(root: Path, index: Path, problems: list[Problem]) -> Mapping[str, str] | None:
    value = _read_json(root, index.name, "header-unreadable", problems)
    weight_map = value.get("weight_map") if value else None
    if isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values()):
        return weight_map
    if value is not None:
        problems.append(
            Problem(
                "header-unreadable",
                f"{index.name} has no weight_map of tensor names to file names",
                "Export the checkpoint again.",
                file=index.name,
            )
        )
    return None


def _shards(
    root: Path, counts: Mapping[str, int], indexed: bool, problems: list[Problem]
) -> list[str]:
    """The named files that are there; `counts` says how many tensors an index places in each."""
    present = []
    for name in sorted(counts):
        if escapes(root, name):
            problems.append(_escape_problem(name))
        elif _is_file(root / name):
            present.append(name)
        else:
            why = f"the index places {counts[name]:,} tensors in it" if indexed else "others are"
            problems.append(
                Problem(
                    "shard-missing",
                    f"{name} is not there; {why}",
                    f"Upload or download {name} again.",
                    file=name,
                )
            )
    return present


def _escape_problem(name: str) -> Problem:
    return Problem(
        "header-unreadable",
        f"{name!r} leads out of the checkpoint's directory; it was not opened",
        "Put the weights into the checkpoint's own directory.",
        file=name,
    )


def _index_problems(
    weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo], seen: Iterable[Problem]
) -> Iterator[Problem]:
    broken = {problem.file for problem in seen}
    fix = "Rebuild the index from the shards' own headers."
    for name, file in weight_map.items():
        if file not in broken and (name not in tensors or tensors[name].file != file):
            yield Problem(
                "indexed-tensor-absent",
                f"the index places {name} in {file}, which lacks it",
                fix,
                file,
                name,
            )
    for name, info in tensors.items():
        if name not in weight_map:
            yield Problem(
                "tensor-not-indexed",
                f"{info.file} holds {name}, which the index does not name",
                fix,
                info.file,
                name,
            )


def _no_weights(root: Path) -> Problem:
    pickles = sorted(p.name for p in root.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if pickles:
        return Problem(
            "no-weights",
            f"only pickled weights ({', '.join(pickles[:3])}): they can run code when opened",
            "Save the model as safetensors: model.save_pretrained(directory).",
            file=pickles[0],
        )
    return Problem("no-weights", "no weight file (*.safetensors)", "Export the checkpoint again.")
