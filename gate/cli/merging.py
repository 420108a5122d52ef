"""Putting the shards of a run together."""

from pathlib import Path

import click

from gate import terminal
from gate.cli.options import RESULT
from gate.errors import ExitCode


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@RESULT
def merge(results: tuple[Path, ...], output: Path) -> int:
    """Make one result of all that `gate eval --shard` stored.

    It is the same as that of a run in one piece, sample for sample: a baseline, or answers to judge
    with `gate check --answers`.
    """
    from gate import merge as merging
    from gate import records
    from gate.reports import text

    merged = merging.merge(results, output.parent)
    records.write(output, merged)
    terminal.say(text.result(merged, output, **terminal.style()))
    return ExitCode.PASS
