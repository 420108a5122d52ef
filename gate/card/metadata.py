"""What stands above a card's text: edited by its lines, so that every other line stays."""

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any

import yaml

from gate.errors import CardError

MAX_CHARS = 2**18
MAX_DEPTH = 100
"""Of brackets: the parser is slow, and its time grows with the square of this."""

FIX = "Mend the metadata at the top of README.md, then judge and attest the checkpoint again."


class _Loader(yaml.SafeLoader):
    """YAML as the hub reads it: `no` is a language, and a day is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp") and (first in "tTfF" or not tag.endswith(":bool"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def edited(
    text: str,
    changes: Callable[[Mapping[str, Any]], Iterable[tuple[str, Any]]],
    newline: str,
) -> str:
    """A mapping with some keys set; every other line stays as it was written.

    Args:
        text: YAML.
        changes: Is given the mapping; the keys to set, and their values.
        newline: What ends a new line.

    Raises:
        CardError: It is no mapping, or one that cannot be edited by its lines.
    """
    before = parsed(text)
    wanted = dict(changes(before))
    for key, value in wanted.items():
        text = _replaced(text, key, value, newline)
    # NaN equals nothing, its text does.
    if repr(parsed(text)) != repr(before | wanted):
        raise CardError("the metadata of README.md cannot be added to", FIX)
    return text


def parsed(text: str) -> dict[str, Any]:
    """The mapping, written with one key a line.

    Raises:
        CardError: It is none, or uses what a few bytes can make huge.
    """
    if len(text) > MAX_CHARS or _depth(text) > MAX_DEPTH:
        raise CardError("the metadata of README.md is too large", FIX)
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise CardError("the metadata of README.md has an alias (*)", FIX)
        node = yaml.compose(text, _Loader)
        found = yaml.load(text, _Loader)  # noqa: S506 (derived from SafeLoader)
    # With explicit tags the parser raises more than its own errors: `!!bool x` is a KeyError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise CardError(f"the metadata of README.md cannot be read: {first}", FIX) from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not isinstance(found, dict):
        raise CardError("the metadata of README.md is not one key a line", FIX)
    if not all(isinstance(key, str) for key in found):
        raise CardError("the metadata of README.md has a key that is no text", FIX)
    return found


def _depth(text: str) -> int:
    """How deeply brackets are nested at most: the parser's time grows with its square."""
    steps = ({"[": 1, "{": 1, "]": -1, "}": -1}.get(char, 0) for char in text)
    return max(accumulate(steps), default=0)


def _replaced(text: str, key: str, value: Any, newline: str) -> str:
    """The text of a mapping with one key set, in its old place or at the end."""
    dumped = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10**6)
    dumped = dumped.replace("\n", newline)
    node = yaml.compose(text, _Loader)
    begins = [(name.value, name.start_mark.index) for name, _ in node.value] if node else []
    if len({name for name, _ in begins}) < len(begins):
        raise CardError("the metadata of README.md has a key twice", FIX)
    for place, (name, begin) in enumerate(begins):
        if name != key:
            continue
        end = begins[place + 1][1] if place + 1 < len(begins) else len(text)
        # Comments and blank lines below a value belong to the key that follows.
        lines = text[begin:end].splitlines(keepends=True)
        while len(lines) > 1 and (not lines[-1].strip() or lines[-1].startswith("#")):
            end -= len(lines.pop())
        return text[:begin] + dumped + text[end:]
    return text + dumped
