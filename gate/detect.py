"""Which checkpoints does a change touch? Told from two commits, without opening a model.

Both commits are listed in full and compared by the names of their contents. What lies in the
working tree is not looked at: on a runner it may be left over from another change.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gate import commits, trees
from gate.checkpoint import Container
from gate.commits import Api, Change, Commits, Fetch
from gate.errors import SettingsError
from gate.git import Repository
from gate.records import ChangedCheckpoint, Detection, Failure
from gate.scope import Scope
from gate.trees import Model, Tree

MOST_JOBS = 256
"""Source: https://docs.github.com/en/actions/reference/limits"""

MOST_FILES = 100
MOST_BYTES_OF_PATH = 4096
"""A longer path cannot be checked out."""

POINTER_BYTES = 1024
"""A Git LFS pointer is smaller.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

POINTER = re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/\S+\r?\n")
POINTER_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})\r?$", re.MULTILINE)


def detect(
    repository: Repository,
    change: Change,
    containers: Sequence[Container],
    *,
    settings_file: Path | None = None,
    paths: Sequence[str] = (),
    fetch: Fetch | None = None,
    api: Api | None = None,
) -> Detection:
    """The checkpoints that a change adds, modifies, renames or removes.

    Args:
        change: The commits to compare.
        containers: Kinds of weight files.
        settings_file: The settings; left out, quant-gate.yaml in the repository's root.
        paths: Globs; checkpoints that none of them covers are left out.
        fetch: How to get commits that this clone does not hold; None to do without.
        api: Whom to ask where that fails.

    Raises:
        GateError: The commits cannot be read.
        SettingsError: The settings of the judged commit are wrong.
    """
    if change.since == "nothing":
        return Detection(base=None, head=change.head, source="nothing to compare")
    found = commits.read(repository, change, fetch, api)
    base = Tree(found.base_entries, containers)
    head = Tree(found.head_entries, containers, base.models)
    scope = Scope.read(repository, settings_file, base, head)
    return _Comparison(repository, base, head).detection(found, scope, paths)


def matrix(detection: Detection) -> dict[str, Any]:
    """The checkpoints that can be judged, for `strategy: matrix: ${{ fromJSON(...) }}`.

    Each has a `name` that is unique and safe in the name of an artifact.

    Raises:
        SettingsError: There are more than GitHub runs.
    """
    found = detection.present
    if len(found) > MOST_JOBS:
        raise SettingsError(
            f"{len(found):,} checkpoints changed, and a matrix holds at most {MOST_JOBS} jobs",
            "Limit them with --path GLOB, or judge them in one job.",
        )
    return jobs(checkpoint.path for checkpoint in found)


def jobs(checkpoints: Iterable[str]) -> dict[str, Any]:
    """A matrix of checkpoints, each with a `name` for it; see `matrix`."""
    names: set[str] = set()
    include = []
    for path in checkpoints:
        names.add(name := _slug(path, names))
        include.append({"checkpoint": path, "name": name})
    return {"include": include}


def lfs_oid(content: bytes) -> str | None:
    """The SHA-256 of the file for which a Git LFS pointer stands; None for any other content."""
    oid = POINTER_OID.search(content) if POINTER.match(content) else None
    return oid[1].decode("ascii") if oid else None


def printable(path: str) -> str:
    r"""A path that any encoding can hold: bytes that are no UTF-8 as \xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Comparison:
    """Two trees, and what differs between them.

    Attributes:
        pointers: Name of a content to the LFS oid that it points to.
        touched: Models to their changed files; those of both trees by the later one's name.
    """

    def __init__(self, repository: Repository, base: Tree, head: Tree) -> None:
        self.base, self.head = base, head
        self.earlier = trees.replaced(base, head)
        self.base_parts, self.head_parts = base.parts(), head.parts()
        differing = {path for path, _ in base.files.items() ^ head.files.items()}
        touched = self._by_model(differing)
        contents = [
            content
            for model, paths in touched.items()
            for path in [*paths, *self.head_parts.get(model, ())]
            for content in (base.files.get(path), head.files.get(path))
            if content is not None
        ]
        blobs = repository.blobs(contents, POINTER_BYTES)
        self.pointers = {sha: oid for sha, blob in blobs.items() if (oid := lfs_oid(blob))}
        self.changed = {path for path in differing if self._differs(path)}
        self.touched = self._by_model(self.changed)

    def detection(self, commits: Commits, scope: Scope, paths: Sequence[str]) -> Detection:
        """What is told of them."""
        found, failures, left_out = [], [], []
        for checkpoint in [*self._checkpoints(), *scope.pins()]:
            if not scope.covers(checkpoint.path, paths):
                left_out.append(printable(checkpoint.path))
            elif checkpoint.change != "removed" and (problem := _problem(checkpoint.path)):
                failures.append(_failure(checkpoint.path, problem))
            else:
                found.append(_printable(checkpoint))
        everything = commits.base is None
        policy = () if everything else sorted(map(printable, scope.policy_files(self.changed)))
        return Detection(
            base=commits.base,
            head=commits.head,
            source=commits.source,
            checkpoints=tuple(sorted(found, key=lambda checkpoint: checkpoint.path)),
            policy_files=tuple(policy),
            left_out=tuple(sorted(left_out)),
            submodules=tuple(sorted(map(printable, trees.submodules(self.base, self.head)))),
            failures=tuple(failures),
        )

    def _by_model(self, paths: Iterable[str]) -> dict[Model, list[str]]:
        later = {earlier: model for model, earlier in self.earlier.items()}
        found: dict[Model, list[str]] = {}
        for path in sorted(paths):
            before = (later.get(model, model) for model in self.base.owners.get(path, ()))
            for model in dict.fromkeys([*self.head.owners.get(path, ()), *before]):
                found.setdefault(model, []).append(path)
        return found

    def _differs(self, path: str) -> bool:
        """Whether a file is another one; a pointer is what it points to."""
        contents = (self.base.files.get(path), self.head.files.get(path))
        before, after = (self.pointers.get(c, c) if c else None for c in contents)
        return before != after

    def _checkpoints(self) -> Iterator[ChangedCheckpoint]:
        head, base = self.head.known(), self.base.known()
        gone = [model for model in self.touched if model not in head]
        new = {m for m in self.touched if m in head and self.earlier.get(m, m) not in base}
        renamed = self._renamed(sorted(new), gone)
        present = set()
        for model in self.touched.keys() & head:
            path = trees.shown(model, self.head)
            present.add(path)
            earlier = renamed.get(model)
            parts = self.head_parts.get(model, ())
            yield ChangedCheckpoint(
                path=path,
                change="renamed" if earlier else "added" if model in new else "modified",
                previous=self._earlier_path(earlier) if earlier else None,
                files=tuple(self.touched[model]),
                pointers=sum(self.head.files[part] in self.pointers for part in parts),
            )
        moved = set(renamed.values())
        for model in gone:
            path = self._earlier_path(model)
            if model not in moved and path not in present:
                files = tuple(self.touched[model])
                yield ChangedCheckpoint(path=path, change="removed", files=files)

    def _earlier_path(self, model: Model) -> str:
        """How a user named it, unless another checkpoint has that name now."""
        if model.directory in self.head.models:
            return model.path
        return trees.shown(model, self.base)

    def _renamed(self, new: Sequence[Model], gone: Sequence[Model]) -> dict[Model, Model]:
        """New models to the gone ones of which they hold at least half of the weight files."""
        where: dict[str, set[Model]] = {}
        for model in gone:
            for content in self._weights(self.base, self.base_parts.get(model, ())):
                where.setdefault(content, set()).add(model)
        found: dict[Model, Model] = {}
        for model in new:
            contents = self._weights(self.head, self.head_parts.get(model, ()))
            shared = Counter(m for content in contents for m in where.get(content, ()))
            for earlier in found.values():
                del shared[earlier]
            best = max(sorted(shared), key=shared.__getitem__, default=None)
            if best is not None and shared[best] * 2 >= len(contents):
                found[model] = best
        return found

    def _weights(self, tree: Tree, paths: Iterable[str]) -> list[str]:
        """The contents of a model's weight files; of all its files where it has none."""
        own = list(paths)
        weights = [path for path in own if tree.is_weights(path)] or own
        return [self.pointers.get(tree.files[path], tree.files[path]) for path in weights]


def _printable(checkpoint: ChangedCheckpoint) -> ChangedCheckpoint:
    """As it is stored: text that any encoding can hold, and not every file."""
    files = tuple(printable(path) for path in checkpoint.files[:MOST_FILES])
    previous = printable(checkpoint.previous) if checkpoint.previous else None
    update: Mapping[str, Any] = {"path": printable(checkpoint.path), "files": files}
    return checkpoint.model_copy(update={**update, "previous": previous})


def _problem(path: str) -> str | None:
    """Why a path cannot be checked out, or passed on."""
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if len(encoded) > MOST_BYTES_OF_PATH:
        return f"its name has {len(encoded):,} bytes"
    if path != "." and {"", ".", "..", ".git"} & set(path.lower().split("/")):
        return "its name leads out of the repository"
    return None


def _failure(path: str, problem: str) -> Failure:
    name = printable(path)
    return Failure(
        checkpoint=name,
        exit_code=3,
        message=f"{name[:200]} cannot be judged: {problem}",
        hint="Rename it.",
    )


def _slug(path: str, taken: set[str]) -> str:
    """A short name for a path, and a digest that tells it from those that look alike."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-.")[-40:].strip("-.") or "checkpoint"
    digest = hashlib.sha256(path.encode()).hexdigest()
    short = f"{words}-{digest[:8]}"
    return f"{words}-{digest}" if short in taken else short
