"""Read a checkpoint's small files, none outside it and none that is no file."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gate.checkpoint.contract import LFS_MAGIC, Problem, lfs_problem

CONFIG_MAX_BYTES = 64 * 2**20
"""A larger JSON file is not read: the biggest public index has 8 MB."""

LFS_MAX_BYTES = 1024
"""A pointer is smaller. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""


def is_file(path: Path) -> bool:
    """Whether a regular file can be found there, through links; False for an impossible name."""
    try:
        return path.is_file()
    except OSError:  # longer than the file system allows
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


def read_json(
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


def pointers(root: Path, files: Iterable[str], seen: Iterable[Problem]) -> Iterator[Problem]:
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
