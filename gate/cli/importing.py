"""Taking over what another evaluator measured."""

from pathlib import Path

import click

from gate import terminal
from gate.cli.options import RESULT, SETTINGS, request
from gate.errors import ExitCode


@click.command(name="import")
@click.argument("evaluator", type=click.Choice(["lm-eval", "lighteval"]))
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--checkpoint", required=True, help="What was measured.")
@RESULT
@SETTINGS
def import_(
    evaluator: str, path: Path, checkpoint: str, output: Path, settings: Path | None
) -> int:
    """Store another evaluator's logged samples as a result: a baseline, or answers to judge."""
    from gate import imports, records
    from gate.reports import text

    found = imports.imported(request(checkpoint, settings), evaluator, path)
    records.write(output, found.result)
    terminal.say(text.result(found.result, output, **terminal.style()))
    for sentence in found.left_out:
        terminal.note(f"left out: {sentence}")
    return ExitCode.PASS
