"""The commands that bind a verdict to bytes, and check that a release is what was judged."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.cli.demanding import demanding
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.verify import Demands


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The directory that was judged.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write."
)
@click.option("--predicate", type=click.Path(path_type=Path), help="Also write it by itself.")
@click.option(
    "--checksums",
    type=click.Path(path_type=Path),
    help="Also list the files as sha256sum does: what actions/attest takes.",
)
def attest(
    report: Path, checkpoint: Path, output: Path, predicate: Path | None, checksums: Path | None
) -> int:
    """Write an in-toto statement that ties a report to every byte of its checkpoint."""
    from gate import attest as attesting
    from gate import records

    statement = attesting.attest(report, checkpoint)
    files = {output: attesting.text(statement)}
    if predicate is not None:
        files[predicate] = attesting.predicate(statement)
    if checksums is not None:
        files[checksums] = attesting.checksums(statement)
    for file, content in files.items():
        records.write_text(file, content)
    terminal.say(
        f"{statement.predicate.result}: {len(statement.subject)} files of {checkpoint}, "
        f"stated in {output}\n"
    )
    return ExitCode.PASS


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--statement",
    type=click.Path(path_type=Path),
    required=True,
    help="What gate attest wrote, also as a DSSE envelope or a Sigstore bundle.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Believe digests kept here where size and time of change are the same.",
)
@demanding
def verify(checkpoint: Path, statement: Path, cache: Path | None, demands: "Demands") -> int:
    """Block a release that is not, byte for byte, what a statement says was judged and passed."""
    from gate import digests
    from gate import verify as verifying
    from gate.reports import verification

    known = digests.Known(cache) if cache else None
    found, refusals = verifying.verify(checkpoint, statement, demands, known)
    if known is not None:
        known.save()
    unasked = verifying.unasked(demands)
    shown = verification.render(
        str(checkpoint),
        found,
        refusals,
        unasked,
        str(demands.signer) if demands.signer is not None else None,
        **terminal.style(),
    )
    terminal.say(shown)
    return ExitCode.FAIL if refusals else ExitCode.PASS
