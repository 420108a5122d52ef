"""The table of all reports, as the page's script reads it."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from gate.dashboard.rows import Row

TEXTS = ("checkpoint", "family", "format", "branch", "metric", "cause")
"""Columns of texts that many reports share: a row has their number."""

CHOICES = ("family", "format", "outcome", "branch")
"""Columns by which the page filters."""


class Table(NamedTuple):
    """What the script is given, and what its filters offer.

    Attributes:
        data: Each text once, by column, and a row a report, the newest first.
        choices: What can be chosen, by column.
    """

    data: dict[str, object]
    choices: dict[str, list[str]]


def table(rows: Iterable[Row], newest: Iterable[Row], paged: Collection[str]) -> Table:
    """The table of these reports.

    Args:
        rows: In any order.
        newest: Of each checkpoint.
        paged: Digests of the reports that have a page.
    """
    latest = {row.digest for row in newest}
    ordered = sorted(rows, key=lambda row: row.age, reverse=True)
    columns = {column: [_text(row, column) for row in ordered] for column in TEXTS}
    texts = {column: sorted(set(found)) for column, found in columns.items()}
    numbers = {column: {text: i for i, text in enumerate(found)} for column, found in texts.items()}
    lines = []
    for place, row in enumerate(ordered):
        known = [numbers[column][columns[column][place]] for column in TEXTS]
        page = row.digest if row.digest in paged else ""
        lines.append(
            [row.date, *known, row.outcome, *_figures(row), page, int(row.digest in latest)]
        )
    offered = texts | {"outcome": sorted({row.outcome for row in ordered})}
    return Table(
        data={"texts": texts, "rows": lines},
        choices={column: [text for text in offered[column] if text] for column in CHOICES},
    )


def _text(row: Row, column: str) -> str:
    if column == "metric":
        return row.first.metric if row.first else ""
    text: str = getattr(row, column)
    return text


def _figures(row: Row) -> list[float | None]:
    """Retention, whether it is of a part, limit, whether that is the least, bytes, bits."""
    size = [row.stored_bytes, row.bits]
    if row.first is None:
        return [None, 0, None, 1, *size]
    shown = row.first
    return [shown.retention, int(shown.early), shown.limit, int(shown.higher_is_better), *size]
