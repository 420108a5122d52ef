"""`gate init`: begin with the gate."""

import os
import shlex
from pathlib import Path

import click

from gate import terminal
from gate.errors import ExitCode


@click.command()
@click.option("--force", is_flag=True, help="Write over files that exist.")
@click.option(
    "--github/--no-github",
    default=None,
    help="Also write .github/workflows/quant-gate.yml; left out, where this is a git repository.",
)
def init(force: bool, github: bool | None) -> int:
    """Write quant-gate.yaml for the checkpoints of this repository, and a workflow."""
    from gate import baseline
    from gate import init as begin
    from gate.reports.wording import plain

    done = begin.init(Path(), force=force, github=github)
    measure = baseline.eval_command(done.reference or "REFERENCE")
    check = shlex.join(["gate", "check", done.checkpoint or "CHECKPOINT"])
    lines = [
        *(f"Wrote {os.path.relpath(done.directory / path)}" for path in done.files),
        *(f"Kept {os.path.relpath(done.directory / path)}, which exists" for path in done.kept),
        "",
        "What is left to do:",
        f"1. Store what the unquantized model scores: {measure}",
        f"2. Judge a checkpoint: {check}",
        "3. Commit these files and baselines/, then require the workflow's check to pass",
    ]
    terminal.say("".join(f"{plain(line)}\n" for line in lines))
    return ExitCode.PASS
