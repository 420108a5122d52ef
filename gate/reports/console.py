"""Tables and lines on a terminal, for every report that is shown there."""

import io
import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gate.reports.wording import plain


def rendered(content: RenderableType, color: bool, width: int) -> str:
    """What a terminal shows, without trailing spaces."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(content)
    shown = "\n".join(_inert(line.rstrip()) for line in out.getvalue().splitlines()) + "\n"
    # A table ends with an empty line, and what comes next may begin with one.
    return re.sub(r"\n{3,}", "\n\n", shown)


def _inert(line: str) -> str:
    """A line that a GitHub runner does not take for a workflow command."""
    line = line.replace("##[", "## [")
    return re.sub(r"^(\s*(?:\x1b\[[0-9;]*m)*):(?=:)", r"\1: ", line)


def headed_table() -> Table:
    """A table with a bold header and one line below it."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")


def table_of(header: Sequence[str]) -> Table:
    """An empty table whose figures are on the right, and whose first and last columns are words."""
    table = headed_table()
    for index, name in enumerate(header):
        last = name == "outcome"
        table.add_column(
            Text(plain(name)),
            justify="left" if index == 0 or last else "right",
            overflow="fold",
            min_width=min(10, len(name)),
        )
    return table


def styled(cell: str) -> Text:
    """A cell, coloured where it holds a verdict."""
    text = Text(plain(cell, lines=True))
    text.highlight_words(["PASS"], style="green")
    text.highlight_words(["FAIL"], style="bold red")
    text.highlight_words(["BORDERLINE", "INCONCLUSIVE"], style="yellow")
    text.highlight_words(["advisory"], style="dim")
    return text


def titled(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Iterable[str]
) -> list[RenderableType]:
    """A table below its title, and what its figures mean; nothing without rows."""
    if not rows:
        return []
    table = table_of(columns)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return [Text(), Text(title, style="bold"), table, *(Text(plain(note)) for note in notes)]


def facts_grid(facts: Sequence[tuple[str, str]]) -> Table:
    """Names and sentences, side by side."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, sentence in facts:
        grid.add_row(name, Text(plain(sentence)))
    return grid
