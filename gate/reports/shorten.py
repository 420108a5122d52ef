"""A comment that fits: told in less and less detail, never cut."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

ALL = 1_000_000


class Detail(NamedTuple):
    """How much of a run is told.

    Attributes:
        answer_chars: Of each prompt and answer; 0 leaves the texts out.
        notes: Whether what decides nothing is told: notes, what was ignored or skipped.
        findings: Most of each checkpoint.
        sections: Checkpoints that are told of one by one, the worst first.
        rows: Checkpoints that are named at all, the worst first.
    """

    answer_chars: int = 1500
    notes: bool = True
    findings: int = 50
    sections: int = ALL
    rows: int = ALL


FULL = Detail()

STAGES = (
    FULL,
    FULL._replace(answer_chars=400),
    *(
        Detail(0, notes, findings, sections, rows)
        for notes, findings, sections, rows in (
            (True, 50, ALL, ALL),
            (False, 50, ALL, ALL),
            (False, 10, ALL, ALL),
            (False, 3, ALL, ALL),
            (False, 3, 100, ALL),
            (False, 3, 20, ALL),
            (False, 3, 10, ALL),
            (False, 3, 5, ALL),
            (False, 3, 3, ALL),
            (False, 3, 1, ALL),
            (False, 3, 0, ALL),
            (False, 3, 0, 100),
            (False, 3, 0, 25),
            (False, 3, 0, 5),
            (False, 0, 0, 0),
        )
    ),
)


def fitted(blocks: Callable[[Detail], Iterator[str]], limit: int) -> str:
    """The most detailed text that fits; the shortest one where none does.

    Args:
        blocks: Paragraphs, tables and the like, which a blank line separates.
        limit: In bytes of UTF-8, of which a text has at least as many as UTF-16 units.
    """
    for detail in STAGES:
        text = _joined(blocks(detail), limit)
        if text is not None:
            return text
    return "\n\n".join(blocks(STAGES[-1])) + "\n"


def _joined(blocks: Iterator[str], limit: int) -> str | None:
    """The text; None as soon as it is too long, before the rest of it is made."""
    kept: list[str] = []
    size = 0
    for block in blocks:
        # Two line ends behind each block, one behind the last.
        size += len(block.encode()) + 2
        if size - 1 > limit:
            return None
        kept.append(block)
    return "\n\n".join(kept) + "\n"
