"""`gate detect`: which checkpoints a change touches."""

import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import terminal
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.github.api import Client
    from gate.trees import Entry


@click.command()
@click.option("--base", metavar="REV", help="Compare from where the change left this revision.")
@click.option(
    "--head", metavar="REV", help="The commit that is judged; HEAD outside of a workflow."
)
@click.option(
    "--settings",
    type=click.Path(path_type=Path),
    help="Settings file; quant-gate.yaml in the repository's root if there is one.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="GLOB",
    help="Only checkpoints that match, from the repository's root. May be repeated.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "json", "matrix"]),
    default="text",
    show_default=True,
    help="What is printed; matrix is for `strategy: matrix: ${{ fromJSON(...) }}`.",
)
def detect(
    base: str | None, head: str | None, settings: Path | None, paths: tuple[str, ...], kind: str
) -> int:
    """Which checkpoints does a change touch?

    In a GitHub workflow the change is the event's: the pull request, the push, the merge group.
    Elsewhere it is what HEAD has that --base has not; without --base, all that HEAD holds. Exits
    with 0 whether or not a checkpoint changed.
    """
    from gate import detect as detecting
    from gate import event as events
    from gate import git
    from gate.commits import Change
    from gate.containers import CONTAINERS

    repository = git.find(Path())
    event, token = events.read(os.environ), os.environ.get("GITHUB_TOKEN")
    if event is not None:
        change = event.change(base=base, head=head)
    else:
        change = Change(head or "HEAD", base, "merge base" if base else "everything")
    found = detecting.detect(
        repository,
        change,
        CONTAINERS,
        settings_file=settings,
        paths=paths,
        fetch=repository.fetch,
        api=_Api(token, event.repository) if token and event and event.repository else None,
    )
    if kind == "text":
        from gate.reports import detection

        terminal.say(detection.render(found))
    elif kind == "json":
        terminal.say(_inert(found.model_dump_json(indent=1)))
    else:
        terminal.say(_inert(json.dumps(detecting.matrix(found))))
    return ExitCode.NO_VERDICT if found.failures else ExitCode.PASS


def _inert(text: str) -> str:
    """JSON in which a runner that reads this process's output finds no command."""
    return text.replace("##[", r"\u0023#[") + "\n"


class _Api:
    """GitHub's API for what the clone lacks: nothing is loaded before it is asked."""

    def __init__(self, token: str, repository: str) -> None:
        self._token, self._repository = token, repository

    @cached_property
    def _client(self) -> "Client":
        from gate.github.api import Client

        address = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
        return Client(address, self._token, self._repository)

    def tree(self, sha: str) -> Iterable["Entry"]:
        """See `gate.commits.Api`."""
        return self._client.tree(sha)

    def merge_base(self, base: str, head: str) -> str:
        """See `gate.commits.Api`."""
        return self._client.merge_base(base, head)
