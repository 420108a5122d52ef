"""The command that judges the gate itself."""

from pathlib import Path

import click

from gate import interrupts, terminal
from gate.cli.options import BATCH, REMOTE_CODE, SETTINGS, request
from gate.errors import ExitCode


@click.command()
@click.argument("checkpoint")
@click.option(
    "--runs",
    type=click.IntRange(2, 100_000),
    help="How often it is judged: 20 times by default, and 1,000 draws with --resample.",
)
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="The stored result to compare with."
)
@SETTINGS
@click.option(
    "--resample",
    is_flag=True,
    help="Run no model: CHECKPOINT is a stored result, of which other documents are drawn.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write it as JSON.")
@BATCH
@REMOTE_CODE
@interrupts.handled()
def calibrate(
    checkpoint: str,
    runs: int | None,
    baseline: Path | None,
    settings: Path | None,
    resample: bool,
    output: Path | None,
    batch_size: int | str | None,
    trust_remote_code: bool,
) -> int:
    """Judge one checkpoint many times: how often does the gate itself change its mind?

    The original against its own baseline shows the rate of false alarms. Exits with 0 whatever the
    verdicts were.
    """
    from gate import bundle, records
    from gate import calibrate as calibrating
    from gate.reports import calibration

    def store(record: "records.Record") -> None:
        if output is not None:
            records.write(output, record)

    asked = request(
        checkpoint,
        settings,
        baseline=baseline,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        store=store,
    )
    if resample:
        if baseline is None:
            raise click.UsageError("--resample compares two stored results: name --baseline.")
        draws = runs or calibrating.DRAWS
        found = calibrating.resample(Path(checkpoint), baseline, asked.settings, draws)
        store(found)
    else:
        bundle.use(asked.root)
        found = calibrating.calibrate(asked, runs or calibrating.RUNS)
    terminal.say(calibration.render(found, **terminal.style()))
    return ExitCode.PASS
