"""Packing what an evaluation reads, for a runner without a network."""

from pathlib import Path

import click

from gate.cli.options import SETTINGS, request
from gate.errors import ExitCode


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The directory to write.",
)
@SETTINGS
def bundle(output: Path, settings: Path | None) -> int:
    """Pack documents, texts, NLTK data, baselines and settings for a runner without a network."""
    from gate import bundle as packing
    from gate.settings import DEFAULT_FILE

    packed = packing.pack(request("", settings), output)
    click.echo(f"{output}: {len(packed.files)} files")
    click.echo(f"Prove it there: gate doctor --offline --settings {output / DEFAULT_FILE}")
    return ExitCode.PASS
