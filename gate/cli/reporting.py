"""Showing stored reports again."""

from pathlib import Path

import click

from gate.cli.options import REPORT
from gate.errors import ExitCode


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "kind", default="text", show_default=True, help="How it is printed.")
@REPORT
def report(files: tuple[Path, ...], kind: str, reports: tuple[str, ...]) -> int:
    """Show stored reports in any form: report.json of `gate check`, run.json of the action."""
    from gate import report as storing
    from gate.cli import output as out
    from gate.reports import REPORTS

    if kind not in REPORTS:
        raise click.BadParameter(f"{kind!r}: one of {', '.join(REPORTS)}", param_hint="--format")
    outputs = out.parse(reports)
    found = [report for file in files for report in storing.stored(file).reports]
    out.write(found, outputs)
    out.show(found, kind)
    return ExitCode.PASS
