"""The history of every checkpoint: reports in a store."""

from pathlib import Path

import click

from gate import terminal
from gate.cli.baseline import STORE, opened
from gate.cli.options import SETTINGS
from gate.errors import ExitCode


@click.group()
def history() -> None:
    """Reports in a store, run after run: what each checkpoint was, and what passed last."""


@history.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@STORE
@SETTINGS
def add(files: tuple[Path, ...], address: str | None, settings: Path | None) -> int:
    """Keep what `gate check --report json=` or the action (run.json) stored."""
    from gate import history
    from gate import report as storing

    store = opened(address, settings)
    for file in files:
        for report in storing.stored(file).reports:
            entry = history.add(store, report)
            terminal.say(f"{entry.short}  {report.checkpoint} of {file} is kept in {store.shown}\n")
    return ExitCode.PASS


@history.command(name="list")
@click.argument("checkpoint", required=False)
@STORE
@SETTINGS
def listed(checkpoint: str | None, address: str | None, settings: Path | None) -> int:
    """Show what is kept, newest first, of one checkpoint or of all."""
    from gate import history
    from gate.reports import stored

    store = opened(address, settings)
    found = history.entries(store, checkpoint)
    terminal.say(stored.history(found, store.shown, **terminal.style()))
    return ExitCode.PASS


@history.command()
@click.argument("name")
@click.option("--format", "kind", default="text", show_default=True, help="How it is printed.")
@STORE
@SETTINGS
def show(name: str, kind: str, address: str | None, settings: Path | None) -> int:
    """Show a report again, by its digest's beginning, or the newest one of a checkpoint."""
    from gate import history
    from gate.cli import output as out
    from gate.reports import REPORTS

    if kind not in REPORTS:
        raise click.BadParameter(f"{kind!r}: one of {', '.join(REPORTS)}", param_hint="--format")
    store = opened(address, settings)
    out.show([history.report(store, history.named(store, name))], kind)
    return ExitCode.PASS


@history.command()
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many reports of each checkpoint and branch stay.",
)
@click.option(
    "--max-age", default="365d", show_default=True, metavar="365d", help="Older reports go."
)
@STORE
@SETTINGS
def prune(keep: int, max_age: str, address: str | None, settings: Path | None) -> int:
    """Let old reports and shared verdicts go; what passed last stays whatever its age."""
    from gate import duration, history

    store = opened(address, settings)
    gone = history.prune(store, keep, duration.parse(max_age, "age of a report"))
    terminal.say(f"{gone} reports and {store.prune()} documents removed\n")
    return ExitCode.PASS
