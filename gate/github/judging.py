"""Judge one checkpoint in a process of its own, and read back what that stored.

The process may run a model, and code that came with one: it gets neither the token nor the files
through which a step talks to the runner, and what it prints is no command to the runner.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import click

from gate import preflight, records
from gate.errors import ExitCode, GateError
from gate.github import outputs
from gate.github.inputs import PREFIX, Inputs
from gate.github.interpreter import INSTALLATION, Interpreter
from gate.records import Failure, Report
from gate.settings import DEFAULT_FILE

SEE_LOG = "See this job's log."

GRACE_S = 4
"""For a cancelled process; the runner grants 7.5 s to all of this."""

_OWN = re.compile(
    rf"{PREFIX}.*|ACTIONS_.*|GITHUB_(TOKEN|OUTPUT|ENV|PATH|STATE|STEP_SUMMARY)|GH_TOKEN"
    r"|GIT_CONFIG_.*"
)
"""The step's variables. Not HF_TOKEN: an evaluation needs it for gated models and data sets."""


class Judged(NamedTuple):
    """What came of one checkpoint: reports, or why there is none."""

    reports: tuple[Report, ...]
    failures: tuple[Failure, ...] = ()


class Order(NamedTuple):
    """How checkpoints are judged.

    Attributes:
        root: The work tree, to which their paths are relative.
        evaluator: The Python that evaluates; None for this one.
        policy_commit: Whose settings, baselines and tasks decide; None for the work tree's.
        directory: Where reports are stored.
    """

    inputs: Inputs
    evaluator: Interpreter | None
    root: Path
    policy_commit: str | None
    directory: Path


def judge(checkpoint: str, order: Order) -> Judged:
    """Judge one checkpoint.

    Args:
        checkpoint: Path in the work tree, or org/name@revision.
        order: How.

    Raises:
        KeyboardInterrupt: The job was cancelled; the process has ended.
    """
    directory = order.directory / f"{len(list(order.directory.iterdir()))}"
    directory.mkdir()
    verb, *options = _arguments(checkpoint, order)
    command = [_python(order), "-m", "gate", verb]
    command += ["--report", f"json={directory / 'report.json'}"]
    # What will be signed was judged here: a kept verdict is the word of whoever could write it.
    command += ["--reuse"] if verb == "check" and not order.inputs.attest else []
    with outputs.group(f"Judge {checkpoint}"):
        code, said = _run([*command, *options], order.root)
    try:
        stored = [records.read(path, Report) for path in sorted(directory.glob("*.json"))]
    except GateError as error:
        return Judged((), (failure(checkpoint, error, code),))
    if not stored:
        return Judged((), (failure(checkpoint, _reason(command, code, said, order), code),))
    again = shlex.join(["gate", verb, *options])
    return Judged(tuple(_named(report, checkpoint, again) for report in stored))


def failure(checkpoint: str, error: GateError, code: int = ExitCode.NO_VERDICT) -> Failure:
    """Why a checkpoint has no verdict, whatever its process said of itself by its exit code."""
    judged = {ExitCode.PASS, ExitCode.FAIL, ExitCode.INCONCLUSIVE}
    return Failure(
        checkpoint=checkpoint,
        exit_code=ExitCode.NO_VERDICT if code in judged else code,
        message=error.message,
        hint=error.hint,
    )


def _named(report: Report, checkpoint: str, command: str) -> Report:
    """The report as others read it: a pin with its revision, no directory of this runner."""
    name = report.checkpoint if report.revision is None else checkpoint
    return report.model_copy(update={"checkpoint": name, "command": command})


def _python(order: Order) -> str:
    return order.evaluator.command if order.evaluator is not None else sys.executable


def _arguments(checkpoint: str, order: Order) -> list[str]:
    """What follows `gate`, but where the report goes."""
    inputs = order.inputs
    options = []
    if inputs.settings not in {None, Path(DEFAULT_FILE)}:
        options += ["--settings", str(inputs.settings)]
    if order.policy_commit is not None:
        options += ["--policy-commit", order.policy_commit]
    if inputs.lint_only:
        return ["lint", *options, "--", checkpoint]
    options += ["--full"] if inputs.full else []
    options += ["--publish-text"] if inputs.publish_text else []
    return ["check", *options, "--", checkpoint]


def _run(command: list[str], root: Path) -> tuple[int, list[str]]:
    """Run to the end: the exit code, and the last lines that were printed."""
    try:
        child = subprocess.Popen(
            command,
            cwd=root,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            # Through this process alone: nothing is printed where commands are heeded again.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own: it is ended with all that it started.
            start_new_session=True,
        )
    except OSError as error:
        return ExitCode.NO_VERDICT, [f"gate: {command[0]} cannot be run: {error.strerror}"]
    assert child.stdout is not None
    last: deque[str] = deque(maxlen=50)
    ended = threading.Event()
    copying = threading.Thread(target=_copy, args=(child.stdout, last, ended), daemon=True)
    copying.start()
    try:
        child.wait()
    except KeyboardInterrupt:
        _stop(child)
        raise
    finally:
        _signal(child, signal.SIGKILL)  # what it left behind may hold the GPU
        copying.join(timeout=GRACE_S)
        ended.set()
    return child.returncode, list(last)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """A process's variables: without what is the step's own, and with the gate to import."""
    kept = {name: value for name, value in inherited.items() if not _OWN.fullmatch(name)}
    own = str(INSTALLATION)
    # An empty or relative entry would mean the work tree.
    others = [
        entry
        for entry in inherited.get("PYTHONPATH", "").split(os.pathsep)
        if Path(entry).is_absolute() and entry != own
    ]
    # Safe: the work tree holds what a pull request brings, and is no place to import from.
    return kept | {"PYTHONPATH": os.pathsep.join([own, *others]), "PYTHONSAFEPATH": "1"}


def _copy(stream: IO[bytes], last: deque[str], ended: threading.Event) -> None:
    """Pass on what is printed, and keep the last of it."""
    while (line := stream.readline(1 << 16)) and not ended.is_set():
        last.append(line.decode("utf-8", "replace").rstrip("\n"))
        click.echo(line, nl=False)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started; it may first keep what it has."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    _signal(child, signal.SIGINT)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    try:
        os.killpg(child.pid, signum)
    except (ProcessLookupError, PermissionError):
        return


def _reason(command: list[str], code: int, said: list[str], order: Order) -> GateError:
    """Why there is no report: in the words of the gate, if it had the time to say them."""
    at = max((i for i, line in enumerate(said) if line.startswith("gate: ")), default=None)
    if at is not None:
        hint = "".join(said[at + 1 : at + 2]).strip() or SEE_LOG
        if preflight.INSTALL_EVAL in hint:
            hint = _install_hint(order.evaluator)
        return GateError(said[at].removeprefix("gate: "), hint)
    if code == -signal.SIGKILL:
        return GateError(
            "its process was killed",
            "Look for a lack of memory on the runner: the kernel's log names what it killed.",
        )
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    return GateError(f"its process {how} and stored no report", SEE_LOG)


def _install_hint(evaluator: Interpreter | None) -> str:
    """How evaluation gets the packages that it needs."""
    if evaluator is None:
        return (
            "Name a Python that has torch and lm-eval in the input eval-python, or validate "
            "without a model: lint-only: true"
        )
    return f"Run on the runner: {evaluator.install_command()}"
