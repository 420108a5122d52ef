"""What a store holds, on a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gate.records import Entry
from gate.reports.console import headed_table, rendered
from gate.reports.wording import plain


def render(entries: Sequence[Entry], store: str, *, color: bool = False, width: int = 100) -> str:
    """One row a kept result."""
    if not entries:
        return rendered(Text(f"{plain(store)} holds no baseline"), color, width)
    table = headed_table()
    for name in ("digest", "model", "measured", "device", "date"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        cells = (
            entry.short,
            _model(entry),
            entry.facts.get("measured", ""),
            entry.facts.get("device", ""),
            entry.date[:10],
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return rendered(table, color, width)


def history(entries: Sequence[Entry], store: str, *, color: bool = False, width: int = 100) -> str:
    """One row a kept report."""
    if not entries:
        return rendered(Text(f"{plain(store)} holds no such report"), color, width)
    table = headed_table()
    for name in ("digest", "checkpoint", "outcome", "branch", "run", "date"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        facts = entry.facts
        cells = (
            entry.short,
            _model(entry),
            facts.get("outcome", "").upper(),
            facts.get("branch", ""),
            facts.get("run", ""),
            entry.date[:16].replace("T", " "),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return rendered(table, color, width)


def details(entry: Entry, *, color: bool = False, width: int = 100) -> str:
    """Everything that is known of one."""
    grid = Table.grid(padding=(0, 2))
    facts = {"digest": entry.content, "model": _model(entry), "date": entry.date, **entry.facts}
    for name, value in (facts | {"weights": entry.key}).items():
        grid.add_row(Text(plain(name), style="bold"), Text(plain(value)))
    return rendered(grid, color, width)


def _model(entry: Entry) -> str:
    return f"{entry.model}@{entry.revision}" if entry.revision else entry.model
