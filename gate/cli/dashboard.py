"""The dashboard of every kept report."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.cli.baseline import STORE, opened
from gate.cli.options import SETTINGS
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.dashboard import Seen
    from gate.store import Store


@click.command()
@click.argument("files", metavar="[REPORT]...", nargs=-1, type=click.Path(path_type=Path))
@STORE
@SETTINGS
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory to write: index.html, and a page of each report in reports/.",
)
@click.option(
    "--pages",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many of the newest reports of each checkpoint get a page of their own.",
)
def dashboard(
    files: tuple[Path, ...], address: str | None, settings: Path | None, output: Path, pages: int
) -> int:
    """Show every report of a store on one page: size against accuracy, history, formats.

    The page needs no server and no network. Reports in files (report.json of `gate check`, run.json
    of the action) are shown, too.
    """
    from gate import dashboard, history

    store = _store(files, address, settings)
    entries = history.entries(store) if store is not None else ()
    kept = dashboard.kept(store, entries) if store is not None else iter(())
    with terminal.progress("reports", len(entries)) as advance:
        found = chain(_counted(kept, advance), dashboard.filed(files))
        made = dashboard.dashboard(found, output, per_checkpoint=pages)
    terminal.say(
        f"{output / 'index.html'}: {made.releasable} of {made.checkpoints} checkpoints releasable, "
        f"{made.reports} reports, {made.pages} with a page\n"
    )
    return ExitCode.PASS


def _store(files: tuple[Path, ...], address: str | None, settings: Path | None) -> "Store | None":
    """Where reports are kept; None where only files are named."""
    from gate import settings as reading

    if files and address is None and reading.load(settings)[0].store is None:
        return None
    return opened(address, settings)


def _counted(reports: "Iterator[Seen]", advance: Callable[[int], None]) -> "Iterator[Seen]":
    for seen in reports:
        advance(1)
        yield seen
