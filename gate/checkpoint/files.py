"""Read a checkpoint's small files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gate.checkpoint.contract import LFS_MAGIC, Problem, lfs_problem
from gate.checkpoint.store import Store

CONFIG_MAX_BYTES = 64 * 2**20
"""A larger JSON file is not read: the biggest public index has 8 MB."""

LFS_MAX_BYTES = 1024
"""A pointer is smaller. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""


def read_json(
    store: Store, name: str, rule: str, problems: list[Problem], *, required: bool = False
) -> Mapping[str, Any] | None:
    """Read a JSON object, or note under `rule` why not."""
    if name not in store.names:
        if required:
            problems.append(
                Problem(
                    rule, f"{name} is missing", f"Copy {name} from the unquantized model.", name
                )
            )
        return None
    problem = store.refusal(name)
    try:
        if problem is None and (size := store.size(name)) > CONFIG_MAX_BYTES:
            problem = f"has {size:,} bytes: not a configuration"
        elif problem is None:
            raw = bytes(store.read(name))
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


def pointers(store: Store, files: Iterable[str], seen: Iterable[Problem]) -> Iterator[Problem]:
    """Git LFS pointers among the files that opening does not read, such as the tokenizer's."""
    known = {problem.file for problem in seen}
    for name in files:
        try:
            if name in known or store.size(name) > LFS_MAX_BYTES:
                continue
            raw = store.read(name, 0, len(LFS_MAGIC))
        except OSError:
            continue  # whoever needs the file says so
        if raw == LFS_MAGIC:
            yield lfs_problem(name)
