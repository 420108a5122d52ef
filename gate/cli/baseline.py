"""Baselines in a store."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.cli.options import SETTINGS
from gate.errors import ExitCode, SettingsError

if TYPE_CHECKING:
    from gate.store import Store

STORE = click.option(
    "--store", "address", help="Directory or address; left out, `store` of the settings."
)


@click.group()
def baseline() -> None:
    """Baselines in a store: any directory, s3://, gs:// or hf:// address."""


def opened(address: str | None, settings: Path | None) -> "Store":
    """The named store, else that of the settings.

    Raises:
        SettingsError: Neither names one.
    """
    from gate import settings as reading
    from gate import store

    if address is not None:
        return store.at(address, Path.cwd())
    loaded, root = reading.load(settings)
    if loaded.store is None:
        raise SettingsError("no store is named", "Name it: --store, or store: in quant-gate.yaml.")
    return store.at(loaded.store, root)


@baseline.command(name="list")
@STORE
@SETTINGS
def listed(address: str | None, settings: Path | None) -> int:
    """Show what is kept, newest first."""
    from gate.reports import stored

    store = opened(address, settings)
    terminal.say(stored.render(store.entries("baseline"), store.shown, **terminal.style()))
    return ExitCode.PASS


@baseline.command()
@click.argument("name")
@STORE
@SETTINGS
def show(name: str, address: str | None, settings: Path | None) -> int:
    """Show one baseline, by its digest's beginning or its model's name."""
    from gate import baselines
    from gate.reports import stored

    entry = baselines.named(opened(address, settings), name)
    terminal.say(stored.details(entry, **terminal.style()))
    return ExitCode.PASS


@baseline.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@STORE
@SETTINGS
def push(files: tuple[Path, ...], address: str | None, settings: Path | None) -> int:
    """Keep what `gate eval` stored."""
    from gate import baselines

    store = opened(address, settings)
    for file in files:
        entry = baselines.push(store, file)
        terminal.say(f"{entry.short}  {file} is kept in {store.shown}\n")
    return ExitCode.PASS


@baseline.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write."
)
@STORE
@SETTINGS
def pull(name: str, output: Path, address: str | None, settings: Path | None) -> int:
    """Write a kept baseline into a file, by its digest's beginning or its model's name."""
    from gate import baselines

    store = opened(address, settings)
    baselines.pull(store, baselines.named(store, name), output)
    return ExitCode.PASS


@baseline.command()
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many of each model and fingerprint stay.",
)
@STORE
@SETTINGS
def prune(keep: int, address: str | None, settings: Path | None) -> int:
    """Let old baselines go, and the documents that nothing names any more."""
    from gate import baselines

    store = opened(address, settings)
    _, old = baselines.divided(store.entries("baseline"), keep)
    for entry in old:
        store.remove(entry)
    terminal.say(f"{len(old)} baselines and {store.prune()} documents removed\n")
    return ExitCode.PASS
