"""`gate publish`: bring a finished run to GitHub."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.errors import ExitCode, PublishError

if TYPE_CHECKING:
    from gate.github.api import Client
    from gate.github.publish import Options
    from gate.github.sticky import Mode
    from gate.records import GateRun

MODES = ["always", "changes", "failures", "never"]


@click.command()
@click.argument("files", nargs=-1, metavar="[RUN.json]...", type=click.Path(path_type=Path))
@click.option("--repository", metavar="OWNER/NAME", help="Default: the run's, GITHUB_REPOSITORY.")
@click.option("--pull-request", type=click.IntRange(1), metavar="N", help="Default: the run's.")
@click.option("--key", help="Tells this gate from others on the same pull request.")
@click.option(
    "--comment",
    type=click.Choice(MODES),
    default="always",
    show_default=True,
    help="When the pull request's comment is written; `changes`: when the verdict is another.",
)
@click.option(
    "--commit-status/--no-commit-status", default=True, help="Set the status quant-gate/KEY."
)
@click.option("--pending", is_flag=True, help="Only set the status that says: a run has started.")
@click.option(
    "--workflow-run",
    is_flag=True,
    help="Publish what the fork's run that started this workflow_run stored as artifacts.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
def publish(
    files: tuple[Path, ...],
    repository: str | None,
    pull_request: int | None,
    key: str | None,
    comment: "Mode",
    commit_status: bool,
    pending: bool,
    workflow_run: bool,
    dry_run: bool,
) -> int:
    """Bring a finished run to GitHub: comment, commit status, job summary, annotations.

    Several RUN.json, or directories of them, are the parts of one run. The token is taken from
    GITHUB_TOKEN. Exits 0 once everything is delivered, whatever the verdict; 3 otherwise.
    """
    from gate.github import publish as publishing

    options = publishing.Options(comment=comment, commit_status=commit_status, forked=workflow_run)
    if pending + workflow_run + bool(files) != 1:
        raise click.UsageError("Name run.json files, or --pending, or --workflow-run.")
    if pending:
        return _announce(repository, key)
    run = _forks(repository, key) if workflow_run else _stored(files)
    if run is None:
        return ExitCode.PASS
    given = {"repository": repository, "pull_request": pull_request, "key": key}
    named = {name: value for name, value in given.items() if value is not None}
    run = run.model_copy(update=named)
    return _preview(run, options) if dry_run else _deliver(run, options)


def _stored(files: tuple[Path, ...]) -> "GateRun":
    from gate.github import joining

    return joining.load(files)


def _forks(repository: str | None, key: str | None) -> "GateRun | None":
    """The run of a fork's pull request; None, with a word on why, where there is none."""
    from gate import event
    from gate.github import artifact

    started = event.read(os.environ)
    own = repository or (started.repository if started is not None else None)
    if started is None or started.name != "workflow_run" or not started.run_id or own is None:
        raise PublishError(
            "no finished workflow run started this one",
            "Use --workflow-run in a workflow with `on: workflow_run`.",
        )
    collected = artifact.collect(_client(own), own, started.run_id, key or "default")
    if collected.run is None:
        terminal.say(f"Nothing to publish: {collected.reason}.\n")
    return collected.run


def _deliver(run: "GateRun", options: "Options") -> int:
    from gate.github import publish as publishing

    client = _client(run.repository or os.environ.get("GITHUB_REPOSITORY"))
    done = publishing.publish(run, client, options, os.environ)
    terminal.say("".join(f"{note}\n" for note in done.notes))
    for warning in done.warnings:
        click.echo(f"gate: {warning}", err=True)
    return ExitCode.NO_VERDICT if done.warnings else ExitCode.PASS


def _preview(run: "GateRun", options: "Options") -> int:
    from gate.github import publish as publishing
    from gate.github import status, sticky

    settled = status.settled(run, forked=options.forked)
    body = sticky.compose(publishing.post(run, options), None)
    terminal.say(f"{settled.context}: {settled.state}: {settled.description}\n\n{body}")
    return ExitCode.PASS


def _announce(repository: str | None, key: str | None) -> int:
    from gate import event
    from gate.github import publish as publishing

    started = event.read(os.environ)
    if started is None or started.head_sha is None:
        raise PublishError(
            "no event says which commit is judged", "Use --pending in a workflow, on GitHub."
        )
    server, own = os.environ.get("GITHUB_SERVER_URL"), repository or started.repository
    url = f"{server}/{own}/actions/runs/{started.run_id}" if server and started.run_id else None
    warning = publishing.announce(_client(own), started.head_sha, key or "default", url)
    if warning:
        click.echo(f"gate: {warning}", err=True)
    return ExitCode.NO_VERDICT if warning else ExitCode.PASS


def _client(repository: str | None) -> "Client":
    from gate.github.api import Client

    token = os.environ.get("GITHUB_TOKEN")
    if not token or not repository:
        raise PublishError(
            "there is no token" if not token else "no repository is named",
            "Set GITHUB_TOKEN and GITHUB_REPOSITORY, or use --dry-run.",
        )
    return Client(os.environ.get("GITHUB_API_URL", "https://api.github.com"), token, repository)
