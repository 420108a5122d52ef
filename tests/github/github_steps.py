"""A machine that runs the step of the action, as GitHub's runner does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from github_repository import Repository

from gate import records
from gate.records import GateRun

ROOT = Path(__file__).parent.parent.parent


class Step(NamedTuple):
    """What became of a step."""

    code: int
    outputs: dict[str, str]
    log: str
    stored: Path

    @property
    def run(self) -> GateRun:
        return records.read(Path(self.outputs["report-json-path"]), GateRun)


class Runner:
    """A machine that runs steps, one after the other."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.home = tmp_path / "home"
        self.temp = tmp_path / "temp"
        self.home.mkdir()
        self.temp.mkdir()
        self.output, self.summary = tmp_path / "output", tmp_path / "summary"

    def environment(
        self, repository: Repository, event: str, payload: Mapping[str, Any], **inputs: str
    ) -> dict[str, str]:
        """What the runner gives to a step of a composite action."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": event,
            "GITHUB_EVENT_PATH": str(repository.write_event(payload)),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_RUN_ATTEMPT": "2",
            "GITHUB_RUN_ID": "42",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_WORKSPACE": str(repository.root),
            "PYTHONPATH": str(ROOT),
            "QUANT_GATE_CACHE": str(self.tmp_path / "cache"),
            "RUNNER_TEMP": str(self.temp),
        } | {f"QUANT_GATE_INPUT_{name.upper()}": value for name, value in inputs.items()}

    def start(
        self, repository: Repository, environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        self.output.write_text("")
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "gate", "action"],
            cwd=repository.root, env=dict(environment), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> Step:
        log, _ = process.communicate(timeout=60)
        return Step(process.returncode, parsed(self.output.read_text()), log, self.temp)

    def run(
        self,
        repository: Repository,
        event: str,
        payload: Mapping[str, Any],
        extra: Mapping[str, str] | None = None,
        **inputs: str,
    ) -> Step:
        environment = self.environment(repository, event, payload, **inputs)
        return self.finish(self.start(repository, environment | dict(extra or {})))


def parsed(output: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it; what it would refuse fails."""
    found: dict[str, str] = {}
    lines = iter(output.split("\n")[:-1])
    for line in lines:
        name, separator, delimiter = line.partition("<<")
        assert separator, line
        value = []
        while (following := next(lines)) != delimiter:
            value.append(following)
        found[name] = "\n".join(value)
    return found
