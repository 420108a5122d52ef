"""Where reports go: files, the terminal, the exit code."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.records import Report

Outputs = list[tuple[str, Path]]


def parse(reports: Sequence[str]) -> Outputs:
    """Format and file of each --report.

    Raises:
        click.BadParameter: One is not FORMAT=FILE.
    """
    from gate.reports import REPORTS

    outputs = []
    for item in reports:
        kind, separator, file = item.partition("=")
        if not separator or not file or kind not in REPORTS:
            raise click.BadParameter(
                f"{item!r}: write FORMAT=FILE with one of {', '.join(REPORTS)}",
                param_hint="--report",
            )
        outputs.append((kind, Path(file)))
    return outputs


def write(reports: Sequence["Report"], outputs: Outputs) -> None:
    """One file a format; where several checkpoints were judged, one JSON file each."""
    from gate import records
    from gate.reports import ONE_EACH, REPORTS

    for kind, path in outputs:
        if kind in ONE_EACH and len(reports) > 1:
            for number, report in enumerate(reports, 1):
                own = path.with_stem(f"{path.stem}-{number}-{Path(report.checkpoint).name}")
                records.write_text(own, REPORTS[kind](report))
        else:
            records.write_text(path, REPORTS[kind](*reports))


def show(reports: Sequence["Report"], kind: str = "text") -> None:
    """Print the reports; text in the terminal's colours and width."""
    from gate.reports import REPORTS, text

    if kind == "text":
        terminal.say(text.render(*reports, **terminal.style()))
    else:
        terminal.say(REPORTS[kind](*reports))


def worst(reports: Sequence["Report"]) -> int:
    """The exit code of the worst verdict that decides."""
    codes = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "inconclusive": ExitCode.INCONCLUSIVE}
    deciding = [r for r in reports if r.policy is None or not r.policy.advisory]
    outcomes = {codes[report.verdict.outcome] for report in deciding}
    # A FAIL outweighs an INCONCLUSIVE.
    return ExitCode.FAIL if ExitCode.FAIL in outcomes else max(outcomes, default=ExitCode.PASS)
