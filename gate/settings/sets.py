"""Named sets of suites that the package brings: `suites: [retention]` in the settings."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import yaml

from gate.errors import SettingsError

NAMES = (
    "ifeval",
    "quick",
    "retention",
    "capabilities",
    "open-llm",
    "multilingual",
    "long-context",
)
"""Each a file in gate/suites/, from what is most asked for to what takes longest."""

PACKAGED = "package:"
"""How the name of a file begins that lies in gate/suites/ rather than beside the settings."""

TOGETHER = ("combine", "min_mean_retention")
"""What a set may say of its suites as a whole."""


def expanded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are written, with the suites of each named set in its place.

    Raises:
        SettingsError: A name is none, or a set whose mean decides stands beside other suites.
    """
    suites = value.get("suites")
    if not isinstance(suites, list) or not any(isinstance(suite, str) for suite in suites):
        return dict(value)
    whole = dict(value)
    listed: list[Any] = []
    for suite in suites:
        if not isinstance(suite, str):
            listed.append(suite)
            continue
        found = load(suite)
        listed += found["suites"]
        stated = {key: found[key] for key in TOGETHER if key in found}
        if stated and len(suites) > 1:
            raise SettingsError(
                f"the mean of the set {suite} decides, so it cannot stand beside other suites",
                f"Copy what you want of it: gate list suites {suite}",
            )
        whole = stated | whole
    return whole | {"suites": listed}


def as_written(value: Mapping[str, Any], place: Sequence[int | str]) -> tuple[int | str, ...]:
    """A place in expanded settings as one in those that were written."""
    head, *rest = place or ("",)
    if head != "suites" or not rest:
        return tuple(place)
    lengths = [len(load(s)["suites"]) if isinstance(s, str) else 1 for s in value["suites"]]
    ends = itertools.accumulate(lengths)
    index = next((i for i, end in enumerate(ends) if int(rest[0]) < end), 0)
    return (head, index, *rest[1:])


def load(name: str) -> dict[str, Any]:
    """A set as its file says it.

    Raises:
        SettingsError: There is none of that name.
    """
    found: dict[str, Any] = yaml.safe_load(source(name))
    return found


def source(name: str) -> str:
    """The file of a set.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in NAMES:
        raise SettingsError(
            f"there is no set of suites named {name}", f"Choose among {', '.join(NAMES)}."
        )
    return (_directory() / f"{name}.yaml").read_text(encoding="utf-8")


def located(root: Path, name: str) -> Path:
    """A file that settings name: relative to their directory, or one of the package's."""
    if name.startswith(PACKAGED):
        return _directory() / PurePath(name.removeprefix(PACKAGED)).name
    return root / name


@cache
def _directory() -> Path:
    return Path(str(resources.files("gate") / "suites"))
