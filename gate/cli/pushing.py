"""The command that publishes a checkpoint on the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.cli.demanding import demanding
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.verify import Demands


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", metavar="ORG/NAME")
@click.option(
    "--statement",
    type=click.Path(path_type=Path),
    help="What gate attest wrote, signed or not; left out, it is made of the report.",
)
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write its results into the model card."
)
@click.option("--revision", metavar="BRANCH", help="Push to this branch, made if need be.")
@click.option("--public", is_flag=True, help="For everybody to see; private otherwise.")
@click.option("--delete", is_flag=True, help="Remove files of the repository that were not judged.")
@click.option("--dry-run", is_flag=True, help="Show what would be uploaded; use no network.")
@demanding
def push(
    checkpoint: Path,
    target: str,
    statement: Path | None,
    report: Path | None,
    revision: str | None,
    public: bool,
    delete: bool,
    dry_run: bool,
    demands: "Demands",
) -> int:
    """Upload a checkpoint to the Hugging Face hub, only if gate verify passes.

    The token is HF_TOKEN, or that of `hf auth login`.
    """
    from gate import push as pushing
    from gate import upload
    from gate import verify as verifying
    from gate.reports import pushing as shown
    from gate.reports import verification

    upload.require_name(target)
    found, release, refusals = pushing.prepared(checkpoint, statement, report, demands)
    style = terminal.style()
    unasked = verifying.unasked(demands)
    signer = str(demands.signer) if demands.signer is not None else None
    name = str(checkpoint)
    terminal.say(verification.render(name, found, refusals, unasked, signer, **style))
    if release is None:
        return ExitCode.FAIL
    if dry_run:
        sizes, card = release.sizes, release.card
        terminal.say(shown.render(target, revision, public, sizes, card, **style))
        return ExitCode.PASS
    place = upload.Target(target, revision, public, delete)
    terminal.say(f"PUSHED  {pushing.push(release, place)}\n")
    return ExitCode.PASS
