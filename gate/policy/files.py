"""The files that settings name: what a policy consists of, and its digest."""

import hashlib
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gate.errors import SettingsError
from gate.records import Policy
from gate.settings import BASELINES, DEFAULT_FILE, PACKAGED, Settings

TASK_SUFFIXES = (".yaml", ".yml", ".py")
"""What a task file may include or import from beside it."""

ANY_SUFFIX = ("",)

DISTRIBUTIONS = (".npz",)
"""What a baseline's distributions, which lie beside it, end in."""


@dataclass(frozen=True)
class Named:
    """Files and directories, relative to the settings' directory, `/` between names.

    Attributes:
        files: By their whole path; an absolute one lies on this machine, outside the repository.
        directories: With the endings of the files in and below them that count.
    """

    files: frozenset[str]
    directories: Mapping[str, tuple[str, ...]]

    def holds(self, path: str) -> bool:
        """Whether a file is one of them."""
        return path in self.files or any(
            path.endswith(suffixes) and (directory == "." or path.startswith(f"{directory}/"))
            for directory, suffixes in self.directories.items()
        )


def named(settings: Settings) -> Named:
    """What settings name, the stored baselines included.

    A task file brings the task files and Python beside and below it; a task that reads other
    files of its own belongs into `include_path`, which counts as a whole.
    """
    tasks = [m.task for m in settings.task_metrics if m.task.endswith((".yaml", ".yml"))]
    files = [
        *tasks,
        *(rule.baseline for rule in settings.checkpoints),
        # The package's own come with its version.
        *(
            m.documents
            for m in settings.task_metrics
            if not (m.documents or "").startswith(PACKAGED)
        ),
        *(metric.perplexity.file for metric in settings.perplexity_metrics),
        settings.answers,
    ]
    directories: dict[str, tuple[str, ...]] = {
        posixpath.dirname(rule.baseline) or ".": DISTRIBUTIONS
        for rule in settings.checkpoints
        if rule.baseline is not None
    }
    directories |= {BASELINES: (".json", *DISTRIBUTIONS)}
    for task in tasks:
        place = posixpath.dirname(task) or "."
        directories[place] = (*directories.get(place, ()), *TASK_SUFFIXES)
    if settings.include_path is not None:
        directories[settings.include_path] = ANY_SUFFIX
    return Named(
        frozenset(posixpath.normpath(file) for file in files if file),
        {posixpath.normpath(path): endings for path, endings in directories.items()},
    )


def digest(contents: Mapping[str, str]) -> str:
    """SHA-256 over names and contents.

    Args:
        contents: Name, relative to the settings' directory, to the SHA-256 of the content.
    """
    return hashlib.sha256(json.dumps(sorted(contents.items())).encode("ascii")).hexdigest()


def working(settings: Settings, file: Path | None, root: Path) -> Policy:
    """The policy as it lies in the working tree.

    Args:
        settings: Whose files.
        file: The settings file; None for quant-gate.yaml, if there is one.
        root: Directory to which the settings' paths are relative.

    Raises:
        SettingsError: One of its files cannot be read.
    """
    contents = {name: _hash(root / name) for name in present(named(settings), root)}
    file = file or root / DEFAULT_FILE
    if file.is_file():
        contents[file.name] = _hash(file)
    return Policy(commit=None, digest=digest(contents))


def machine_contents(wanted: Named) -> dict[str, str]:
    """Name and SHA-256 of what is named by absolute paths: whoever runs this machine put it there.

    Raises:
        SettingsError: One of the files cannot be read.
    """
    absolute = Named(
        frozenset(filter(posixpath.isabs, wanted.files)),
        {path: ends for path, ends in wanted.directories.items() if posixpath.isabs(path)},
    )
    return {name: _hash(Path(name)) for name in present(absolute, Path("/"))}


def present(wanted: Named, root: Path) -> Iterator[str]:
    """Those of the named files that exist."""
    yield from (name for name in wanted.files if (root / name).is_file())
    for directory, endings in wanted.directories.items():
        for place, _, names in os.walk(root / directory):
            for path in (Path(place, name) for name in names if name.endswith(endings)):
                if path.is_file():
                    inside = path.relative_to(root / directory).as_posix()
                    yield posixpath.normpath(posixpath.join(directory, inside))


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", "Check what the settings name."
        ) from error
