"""The names of a checkpoint's modules, sought by patterns from untrusted files."""

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property

from gate.patterns import MAX_NAME, MOST_PARTS, compiled

MOST_MATCHES = 500_000
"""Names held against expressions in all; what comes after counts as not judged."""

READ_PER_MATCH = 16
"""Names through which a text is sought in the time of one match."""

COMPILING = 400
"""Matches that are done in the time of compiling one expression."""

WILDCARD = re.compile(r"[*?\[]")


class ModuleNames:
    """Names in order, so that one pattern costs one search in them.

    Attributes:
        unjudged: Whether a search was cut short: too many expressions for too many names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._left = MOST_MATCHES
        self.unjudged = False

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def beginning(self, prefix: str) -> str | None:
        """The first name that begins so."""
        position = bisect_left(self._sorted, prefix)
        found = self._sorted[position] if position < len(self._sorted) else ""
        return found if found.startswith(prefix) else None

    def holding(self, text: str) -> str | None:
        """A name that holds a text at any place."""
        if not self._spend(1 + len(self._names) // READ_PER_MATCH):
            return None
        place = self._text.find(text)
        if place < 0:
            return None
        begin, end = self._text.rfind("\n", 0, place) + 1, self._text.find("\n", place)
        return self._text[begin : end if end >= 0 else None]

    def matching(self, pattern: str) -> str | None:
        """The first name that a glob pattern, or an expression after `re:`, names as a whole."""
        expression = expression_of(pattern) if self._spend(COMPILING) else None
        for name in self._sorted if expression else ():
            if not self._spend(1):
                return None
            if len(name) <= MAX_NAME and expression and expression.fullmatch(name):
                return name
        return None

    def named(self, pattern: str) -> str | None:
        """The first name that an entry of a list of exclusions stands for."""
        if not is_wild(pattern):
            return pattern if pattern in self._names else None
        stem = pattern[:-1]
        if pattern.endswith("*") and not is_wild(stem):
            if stem.endswith(".") and stem[:-1] in self._names:
                return stem[:-1]
            return self.beginning(stem)
        return self.matching(pattern)

    def _spend(self, matches: int) -> bool:
        self._left -= matches
        self.unjudged = self.unjudged or self._left < 0
        return self._left >= 0

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._names)

    @cached_property
    def _text(self) -> str:
        return "\n".join(self._sorted)


def is_wild(pattern: str) -> bool:
    """Whether an entry of a list of exclusions is more than a name."""
    return pattern.startswith("re:") or WILDCARD.search(pattern) is not None


def expression_of(pattern: str) -> re.Pattern[str] | None:
    """A glob pattern, or an expression after `re:`, compiled; None where it could run away."""
    if len(pattern) > MAX_NAME:
        return None
    if pattern.startswith("re:"):
        return compiled(pattern[3:])
    return re.compile(fnmatch.translate(pattern))


def ancestors(name: str) -> Iterator[str]:
    """The modules around a module, the nearest first."""
    for _ in range(MOST_PARTS):
        name = name.rpartition(".")[0]
        if not name:
            return
        yield name


def with_ancestors(names: Iterable[str]) -> set[str]:
    """Modules, and all the modules around them."""
    found = set(names)
    for name in tuple(found):
        for parent in ancestors(name):
            if parent in found:
                break
            found.add(parent)
    return found
