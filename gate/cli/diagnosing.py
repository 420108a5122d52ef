"""Finding out where a checkpoint is hurt."""

from decimal import Decimal
from pathlib import Path

import click

from gate import interrupts, terminal
from gate.cli.options import REMOTE_CODE, SETTINGS, Limit, request
from gate.errors import ExitCode


@click.command()
@click.argument("checkpoint")
@click.option(
    "--reference",
    metavar="ORIGINAL",
    help="The unquantized checkpoint; left out, the one that the settings name.",
)
@SETTINGS
@click.option(
    "--limit",
    type=Limit(),
    help="Perplexity ratio that the proposed set must meet; left out, the settings' max_ratio.",
)
@click.option(
    "--windows",
    type=click.IntRange(2, 1 << 20),
    help="Windows of the settings' first text that are read.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also store all of it as JSON."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="What is printed.",
)
@REMOTE_CODE
@interrupts.handled()
def diagnose(
    checkpoint: str,
    reference: str | None,
    settings: Path | None,
    limit: Decimal | None,
    windows: int | None,
    output: Path | None,
    kind: str,
    trust_remote_code: bool,
) -> int:
    """Where does it hurt: which modules carry the damage, why, and what to leave unquantized."""
    from gate import bundle, records
    from gate import diagnose as diagnosing
    from gate.reports import diagnosed

    asked = request(checkpoint, settings, trust_remote_code=trust_remote_code)
    bundle.use(asked.root)
    report = diagnosing.diagnose(asked, reference, windows=windows, limit=limit)
    if output is not None:
        records.write(output, report)
    if kind == "text":
        terminal.say(diagnosed.text(report, **terminal.style()))
    else:
        terminal.say(diagnosed.FORMATS[kind](report))
    return ExitCode.PASS
