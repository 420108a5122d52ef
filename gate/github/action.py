"""One step of a workflow: detect, judge, publish, and say it by outputs and exit code.

Whatever happens, the step leaves a run.json and a status, and writes both before it fails.
"""

import json
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from gate import __version__, detect, event, records
from gate.errors import ExitCode, GateError
from gate.github import attesting, inputs, joining, judging, outcome, outputs, status
from gate.github.checkout import Checkout
from gate.github.delivery import Delivery
from gate.github.judging import Judged
from gate.records import GateRun
from gate.reports import detection

CANCELLED = GateError("the job was cancelled before there was a verdict", "Run the job again.")


def action(environ: Mapping[str, str]) -> ExitCode:
    """Do what the workflow asks for.

    Args:
        environ: The step's environment.

    Raises:
        SettingsError: An input is wrong; the status is written.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What counts until something else is known: the last value of an output is taken.
    outputs.write(environ.get("GITHUB_OUTPUT"), {"status": "error"})
    try:
        step = Step(environ)
    except GateError as error:
        outputs.say("error", f"{error.message}. {error.hint}")
        raise
    try:
        step.work()
    except GateError as error:
        step.fail(error)
    except KeyboardInterrupt:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        step.fail(CANCELLED, ExitCode.INTERRUPTED)
        step.write()
        step.delivery.give_up(step.run)
        return ExitCode.INTERRUPTED
    step.write()
    step.attest()
    step.deliver()
    return step.exit_code()


class Step:
    """What the step was asked, and what it knows so far.

    Attributes:
        run: What will be stored.
        names: The checkpoints that are to be judged.
        finished: How many of them were, with or without a verdict.
        root: The work tree, once something in it was judged.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.inputs = inputs.read(environ)
        self.event = event.read(environ)
        self.names: Sequence[str] = ()
        self.finished = 0
        self.root: Path | None = None
        self.directory = Path(
            tempfile.mkdtemp(prefix="quant-gate-", dir=environ.get("RUNNER_TEMP") or None)
        )
        self.file = self.directory / "run.json"
        self.matrix: str | None = None
        self.delivery = Delivery(self.inputs, self.event, environ)
        self.run = self._begun()

    def work(self) -> None:
        """Do what the command says.

        Raises:
            GateError: It cannot be done; what was done before is kept.
        """
        if self.inputs.command == "publish":
            self.run = self.delivery.collect() or self.run
        else:
            checkout = Checkout(self.inputs, self.event, self.environ, self.delivery.client)
            if self.inputs.checkpoint is not None:
                self.names = [self.inputs.checkpoint]
            else:
                self._detect(checkout)
            if self.inputs.command != "detect" and self.names:
                self._judge(checkout)
        self.run = self.delivery.waived(self.run)

    def fail(self, error: GateError, code: int = ExitCode.NO_VERDICT) -> None:
        """Keep why the checkpoints that have no verdict have none."""
        left = self.names[self.finished :] or [self.inputs.checkpoint or "."]
        self._add(Judged((), tuple(judging.failure(name, error, code) for name in left)))

    def write(self) -> None:
        """Store the run and the outputs."""
        records.write(self.file, self.run)
        found = outcome.outputs(self.run, self.file)
        if self.matrix is not None:
            found["matrix"] = self.matrix
            if self.names and not self.run.failures:
                found["status"] = ""  # not judged yet
        outputs.write(self.environ.get("GITHUB_OUTPUT"), found)

    def attest(self) -> None:
        """State what passed, for a job that signs it."""
        if not self.inputs.attest or self.root is None:
            return
        directory = self.directory / "attestations"
        attested = attesting.attest(self.run, self.file, self.root, directory)
        if attested.failures:
            self._add(Judged((), attested.failures))
            self.write()
        elif attested.matrix["include"]:
            found = {
                "attestations": json.dumps(attested.matrix),
                "attestations-path": str(directory),
            }
            outputs.write(self.environ.get("GITHUB_OUTPUT"), found)

    def deliver(self) -> None:
        """Show it where the workflow wants it; what cannot be delivered changes nothing."""
        if self.inputs.command != "detect" or self.run.failures:
            url = self.delivery.publish(self.run)
            if url is not None:
                outputs.write(self.environ.get("GITHUB_OUTPUT"), {"comment-url": url})

    def exit_code(self) -> ExitCode:
        """The step's exit code, and the last line of its log."""
        code = outcome.exit_code(self.run, self.inputs)
        if self.matrix is None:
            click.echo(outputs.plain(status.describe(self.run)))
        click.echo(f"Stored in {self.file}")
        if code != ExitCode.PASS:
            outputs.say("error", status.describe(self.run))
        elif self.run.failures:
            outputs.say("warning", "There is no verdict; on-infra-error: warn lets it be.")
        return code

    def _detect(self, checkout: Checkout) -> None:
        found = checkout.detect()
        self._add(Judged((), found.failures))
        self.run = self.run.model_copy(update={"detection": found})
        if self.inputs.head is not None:
            self.run = self.run.model_copy(update={"head_sha": found.head})
        self.names = [checkpoint.path for checkpoint in found.present]
        with outputs.group("What the change touches"):
            click.echo(detection.render(found), nl=False)
        if self.inputs.command == "detect":
            self.matrix = json.dumps(detect.matrix(found))

    def _judge(self, checkout: Checkout) -> None:
        self.delivery.announce(self.run)
        order = checkout.order(self.directory)
        self.root = order.root
        for name in self.names:
            try:
                checkout.fetch_files(name)
                self._add(judging.judge(name, order))
            except GateError as error:
                self._add(Judged((), (judging.failure(name, error, error.exit_code),)))
            self.finished += 1

    def _add(self, judged: Judged) -> None:
        """Keep what came of a checkpoint."""
        policies = [self.run.policy, *(report.policy for report in judged.reports)]
        update = {
            "reports": (*self.run.reports, *judged.reports),
            "failures": (*self.run.failures, *judged.failures),
            "policy": joining.policy(policies),
        }
        self.run = self.run.model_copy(update=update)

    def _begun(self) -> GateRun:
        """The run before anything is known of it, but where it belongs."""
        environ, started = self.environ, self.event
        repository = started.repository if started is not None else None
        run_id = _number(environ.get("GITHUB_RUN_ID"))
        server = environ.get("GITHUB_SERVER_URL")
        at = f"{server}/{repository}/actions/runs/{run_id}" if server and run_id else None
        return GateRun(
            gate_version=__version__,
            key=self.inputs.comment_key,
            repository=repository,
            event=started.name if started is not None else None,
            run_id=run_id,
            run_attempt=_number(environ.get("GITHUB_RUN_ATTEMPT")) or 1,
            run_url=at,
            head_sha=started.head_sha if started is not None else None,
            pull_request=started.pull_request if started is not None else None,
            date=records.now(),
        )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
