"""Git LFS files of the checkpoints that are judged, and no others."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from gate.checkpoint import LFS_MAGIC, find_models
from gate.containers import CONTAINERS
from gate.errors import CheckpointError
from gate.git import Repository
from gate.github.credentials import config

MOST_POINTER_BYTES = 1024
"""Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""

MOST_ARGUMENT = 60_000
"""Characters of patterns for one call; Linux takes twice as many bytes."""

TIMEOUT_S = 6 * 3600

FILTER = {
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
"""What `git lfs install` writes: without it, files are fetched and left as pointers."""


def fetch(
    repository: Repository,
    checkpoint: Path,
    *,
    storage: str | None = None,
    settings: Mapping[str, str],
) -> int:
    """Replace the pointers of one checkpoint in the work tree by their files.

    Args:
        checkpoint: Directory or file in the work tree.
        storage: Directory of what was fetched before, shared between checkouts.
        settings: Of git: who asks; see `gate.github.credentials`.

    Returns:
        How many files were pointers.

    Raises:
        CheckpointError: git-lfs is missing, or a pointer is left.
        GitError: git-lfs failed.
    """
    found = pointers(checkpoint)
    if not found:
        return 0
    if shutil.which("git-lfs") is None:
        raise CheckpointError(
            f"{_count(found)} of {checkpoint} are in Git LFS, and git-lfs is not installed",
            "Run on the runner: sudo apt-get install git-lfs",
        )
    stored = sum(_size(path) for path in found)
    click.echo(f"Fetching {_count(found)} from Git LFS, {stored / 1e6:,.1f} MB")
    kept = {} if storage is None else {"lfs.storage": str(Path(storage).absolute())}
    environment = config({**FILTER, **kept, **settings})
    for patterns in _patterns(repository, found):
        # What the repository's own .lfsconfig leaves out is fetched too.
        repository.run(
            "lfs", "pull", f"--include={patterns}", "--exclude=",
            environment=environment, timeout_s=TIMEOUT_S,
        )  # fmt: skip
    left = pointers(checkpoint)
    if left:
        raise CheckpointError(
            f"{_count(left)} of {checkpoint} are still Git LFS pointers, for example "
            f"{left[0].name}",
            "Check that the repository's Git LFS store has them: git lfs fsck --pointers",
        )
    return len(found)


def pointers(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that are Git LFS pointers; links are not followed."""
    directory = checkpoint if checkpoint.is_dir() else checkpoint.parent
    names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    if not checkpoint.is_dir():
        models = (model for model in find_models(names, CONTAINERS) if checkpoint.name in model)
        names = list(next(models, (checkpoint.name,)))
    return [path for name in names if _is_pointer(path := directory / name)]


def _is_pointer(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_POINTER_BYTES:
        return False
    return path.read_bytes().startswith(LFS_MAGIC)


def _size(pointer: Path) -> int:
    """Bytes of the file for which a pointer stands, as it says."""
    size = re.search(rb"^size (\d{1,18})$", pointer.read_bytes(), re.MULTILINE)
    return int(size[1]) if size else 0


def _patterns(repository: Repository, files: Sequence[Path]) -> Iterator[str]:
    """The files as lists of patterns for --include, each from the repository's root."""
    batch: list[str] = []
    for file in files:
        relative = file.absolute().relative_to(repository.root).as_posix()
        # A comma ends a pattern and cannot be escaped; `?` is any one character.
        pattern = "/" + re.sub(r"[,*?\[\]\\!]", "?", relative)
        if batch and sum(map(len, batch)) + len(batch) + len(pattern) > MOST_ARGUMENT:
            yield ",".join(batch)
            batch = []
        batch.append(pattern)
    yield ",".join(batch)


def _count(files: Sequence[Path]) -> str:
    return f"{len(files)} file" + "s" * (len(files) != 1)
