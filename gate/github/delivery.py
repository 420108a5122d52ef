"""What the step asks of GitHub and shows there; nothing of it changes a verdict, but a waiver."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from gate.errors import GateError
from gate.event import Event
from gate.github import joining, outputs, waiver
from gate.github.inputs import Inputs
from gate.records import GateRun, Waiver

if TYPE_CHECKING:
    from gate.github.api import Client

API_URL = "https://api.github.com"
LAST_S = 2


class Delivery:
    """The way to GitHub.

    Attributes:
        client: None without a token or a repository.
        alone: Another step publishes, such as that of the job after a matrix.
    """

    def __init__(self, inputs: Inputs, event: Event | None, environ: Mapping[str, str]) -> None:
        self._inputs, self._event, self._environ = inputs, event, environ
        self._forked = self._announced = False
        self.alone = inputs.command in {"check", "detect"}
        self.client = self._connected()

    def _connected(self, budget_s: float = 120) -> "Client | None":
        from gate.github.api import Client

        token = self._inputs.github_token
        repository = self._event.repository if self._event is not None else None
        if token is None or repository is None:
            return None
        url = self._environ.get("GITHUB_API_URL") or API_URL
        return Client(url, token, repository, budget_s=budget_s)

    def announce(self, run: GateRun) -> None:
        """Say on the commit that it is being judged; only the step that will also settle it."""
        from gate.github import publish

        wanted = self._inputs.command == "auto" and self._inputs.commit_status
        if self.client is None or run.head_sha is None or not wanted:
            return
        self._announced = True
        warning = publish.announce(self.client, run.head_sha, run.key, run.run_url)
        if warning:
            outputs.say("warning", warning)

    def give_up(self, run: GateRun) -> None:
        """Settle what was announced of a cancelled run, in the time that such a step has left."""
        from gate.github import publish

        if self._announced:
            options = publish.Options(comment="never", commit_status=True)
            publish.publish(run, self._connected(budget_s=LAST_S), options, {})

    def collect(self) -> GateRun | None:
        """The run that other jobs stored: as files, or, after a fork's run, as its artifacts.

        None where the finished run was no fork's: that one has published by itself.

        Raises:
            GateError: There is none, or it cannot be read.
        """
        event, inputs = self._event, self._inputs
        if inputs.run_json:
            return joining.load(inputs.run_json)
        if event is None or event.name != "workflow_run" or self.client is None:
            raise GateError(
                "there is nothing to publish",
                "Name the run.json files of the jobs that judged in the input run-json.",
            )
        from gate.github import artifact

        assert event.run_id is not None
        assert event.repository is not None
        found = artifact.collect(self.client, event.repository, event.run_id, inputs.comment_key)
        if found.run is None:
            outputs.say("notice", f"Nothing to publish: {found.reason}.")
        self._forked = True
        return found.run

    def waived(self, run: GateRun) -> GateRun:
        """The run with the waiver that counts for it, if there is one."""
        inputs, label = self._inputs, self._inputs.waiver_label
        asked = inputs.command in {"auto", "publish"} and not self._forked
        if label is None or not asked or run.status not in {"fail", "inconclusive"}:
            return run
        if self.client is None or self._event is None:
            return run
        try:
            found = waiver.waive(
                self.client, self._event, run, label=label, max_age=inputs.waiver_max_age
            )
        except GateError as error:
            outputs.say("warning", f"Not waived: {error.message}. {error.hint}")
            return run
        if isinstance(found, Waiver):
            return run.model_copy(update={"waiver": found})
        outputs.say("notice", f"Not waived: {found}.")
        return run

    def publish(self, run: GateRun) -> str | None:
        """Show a finished run everywhere that the inputs name; the comment's address.

        A job of a matrix adds to its own summary alone: one job publishes for all of them.
        """
        from gate.github import publish

        inputs = self._inputs
        options = publish.Options(
            comment=inputs.comment, commit_status=inputs.commit_status, forked=self._forked
        )
        environ = {**self._environ, "GITHUB_ACTIONS": ""} if self.alone else self._environ
        done = publish.publish(run, None if self.alone else self.client, options, environ)
        for note in done.notes:
            click.echo(outputs.plain(note))
        if environ.get("GITHUB_ACTIONS") != "true":
            for warning in done.warnings:
                outputs.say("warning", warning)
        return done.comment_url
