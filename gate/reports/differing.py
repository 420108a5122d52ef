"""Two texts beside each other, word by word: what only one of them says."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

from gate.reports.wording import plain

MAX_CHARS = 4000
"""Of a text: comparing takes more than linear time."""

LEAST_WORDS = 3
"""Fewer words in a row, between changes, are the same by chance."""


class Piece(NamedTuple):
    """A stretch of one text, and whether the other has it in the same place."""

    text: str
    own: bool


def sides(baseline: str, candidate: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces; joined, the pieces are the texts as they are shown."""
    words = [_words(text) for text in (baseline, candidate)]
    left, right = ([word.rstrip() for word in side] for side in words)
    own = [True] * len(left), [True] * len(right)
    # Words that are everywhere in a long text are no landmarks: it is the fast way, too.
    for a, b, size in SequenceMatcher(None, left, right).get_matching_blocks():
        ends = a == b == 0 or (a + size, b + size) == (len(left), len(right))
        if size >= LEAST_WORDS or ends:
            for flags, start in zip(own, (a, b), strict=True):
                flags[start : start + size] = [False] * size
    first, second = (list(_joined(*each)) for each in zip(words, own, strict=True))
    return first, second


def _words(text: str) -> list[str]:
    """Words, each with the white space behind it."""
    shown = plain(text, lines=True, limit=MAX_CHARS)
    return re.findall(r"\S+\s*|^\s+", shown)


def _joined(words: list[str], own: list[bool]) -> Iterator[Piece]:
    for flag, run in groupby(zip(words, own, strict=True), lambda pair: pair[1]):
        text = "".join(word for word, _ in run)
        said = text.rstrip()
        yield from (
            piece for piece in (Piece(said, flag), Piece(text[len(said) :], False)) if piece.text
        )
