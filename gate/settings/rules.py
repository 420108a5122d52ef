"""Which checkpoints the settings speak of."""

import fnmatch
import os
import re
from pathlib import PurePath
from typing import Annotated

from pydantic import (
    StringConstraints,
)

from gate.settings.metrics import (
    Part,
)

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


PIN = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[\w./-]+)")
"""A checkpoint on the hub, always with a revision: a verdict is about bytes."""


class CheckpointRule(Part):
    """Which baseline belongs to which checkpoints.

    Attributes:
        path: Glob over checkpoint directories, relative to the settings file; or a checkpoint on
            the hub, pinned as org/name@revision.
        reference: The unquantized checkpoint: a directory or org/name@revision.
        baseline: Its stored result; left out, it is found by the reference's digest in baselines/.
    """

    path: str = "**"
    reference: str | None = None
    baseline: str | None = None

    @property
    def pinned(self) -> tuple[str, str] | None:
        """Repository and revision of a checkpoint on the hub; None for a glob."""
        found = PIN.fullmatch(self.path)
        return (found["repository"], found["revision"]) if found else None


def covers(glob: str, path: str) -> bool:
    """Whether a glob over path components covers a path; `**` is any number of components."""
    return _match(PurePath(os.path.normpath(glob)).parts, PurePath(path).parts)


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Glob over path components; `**` stands for any number of them, none included.

    The settings may come from anyone: what is reached after each component is kept, so that no
    pattern takes exponential time.
    """

    def skipping(positions: set[int]) -> set[int]:
        """With the positions behind any `**`, which may stand for nothing."""
        for position in range(len(pattern)):
            if position in positions and pattern[position] == "**":
                positions.add(position + 1)
        return positions

    reached = skipping({0})
    for part in parts:
        after = set()
        for position in reached - {len(pattern)}:
            if pattern[position] == "**":
                after.add(position)
            elif fnmatch.fnmatchcase(part, pattern[position]):
                after.add(position + 1)
        reached = skipping(after)
    return len(pattern) in reached
