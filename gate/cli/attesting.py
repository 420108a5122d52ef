"""The commands that bind a verdict to bytes, and check that a release is what was judged."""

from pathlib import Path

import click

from gate import terminal
from gate.cli.options import SETTINGS
from gate.errors import ExitCode


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
    text = statement.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    files = {output: text + "\n"}
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
    "--require", multiple=True, metavar="METRIC>=LIMIT", help='For example "ifeval>=0.95".'
)
@click.option("--max-age", metavar="14d", help="Oldest verdict that counts, in days or hours.")
@SETTINGS
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Believe digests kept here where size and time of change are the same.",
)
def verify(
    checkpoint: Path,
    statement: Path,
    require: tuple[str, ...],
    max_age: str | None,
    settings: Path | None,
    cache: Path | None,
) -> int:
    """Block a release that is not, byte for byte, what a statement says was judged and passed."""
    from gate import digests, duration
    from gate import verify as verifying
    from gate.reports import verification

    demands = verifying.Demands(
        requirements=[verifying.Requirement.parse(text) for text in require],
        max_age=duration.parse(max_age, "age of a verdict") if max_age else None,
        settings=verifying.expected(settings),
    )
    known = digests.Known(cache) if cache else None
    found, refusals = verifying.verify(checkpoint, statement, demands, known)
    if known is not None:
        known.save()
    unasked = verifying.unasked(demands)
    shown = verification.render(str(checkpoint), found, refusals, unasked, **terminal.style())
    terminal.say(shown)
    return ExitCode.FAIL if refusals else ExitCode.PASS
