"""Workflows run by act on this machine: no container, no network, no GitHub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
STUBS = Path(__file__).parent / "github" / "actions"
INSTALLING = ("PIP_", "UV_", "SSL_CERT_")


class Ran(NamedTuple):
    """What act said, one JSON object a line. Its exit code is left out: a job it skips passes."""

    lines: tuple[dict[str, Any], ...]

    @property
    def jobs(self) -> dict[str, list[str]]:
        """Job to the results of its runs; a job that never started is absent."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            if "jobResult" in line:
                found.setdefault(line["jobID"], []).append(line["jobResult"])
        return {job: sorted(results) for job, results in found.items()}

    def outputs(self, job: str) -> dict[str, str]:
        """What the steps of a job set, the last one of each name."""
        return {
            line["name"]: line["arg"]
            for line in self.lines
            if line.get("command") == "set-output" and line.get("jobID") == job
        }

    @property
    def log(self) -> str:
        """Everything that the steps printed."""
        return "\n".join(line.get("msg", "").rstrip("\n") for line in self.lines)


def action_copy(into: Path) -> Path:
    """The action as a runner downloads it: this checkout without what git ignores, and tests."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", ":!tests"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    subprocess.run(["git", "init", "--quiet"], cwd=into, check=True)
    return into


def run(
    repository: Path,
    workflow: str,
    event: str,
    payload: Path,
    *,
    action: Path,
    work: Path,
    cache: Path,
    environment: Mapping[str, str],
    programs: Path,
) -> Ran:
    """Run one of the repository's workflow files as GitHub would at an event.

    Args:
        repository: Its working tree is what a checkout gives.
        workflow: Path in the repository.
        action: What `org/quant-gate@v1` stands for.
        work: For what the jobs leave behind.
        cache: The runner's, kept between runs.
        environment: For the steps; of this process's they get PATH and how to install packages.
        programs: Directory of the runner's programs, which come before all others.
    """
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    artifacts = work / "artifacts"
    artifacts.mkdir(exist_ok=True)
    file = repository / workflow
    steps = {"ARTIFACTS": str(artifacts), **environment}
    command = [
        str(TOOLS / "act"), event, "--json", "--rm",
        "--directory", str(repository), "--workflows", str(file), "--eventpath", str(payload),
        "--no-cache-server", "--container-daemon-socket", "-",
        "--action-cache-path", str(cache),
        "--secret", "GITHUB_TOKEN=ghs_stub",
        *(f"--platform={label}=-self-hosted" for label in ("self-hosted", "ubuntu-latest")),
        *(f"--env={name}={value}" for name, value in steps.items()),
        "--var", f"QUANT_GATE_EVAL_PYTHON={sys.executable}",
        *(f"--local-repository={name}={place}" for name, place in _replaced(file, action)),
    ]  # fmt: skip
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    plain = {"HOME": str(home), "PATH": path, "TERM": "dumb", "NO_COLOR": "1"}
    plain |= {"UV_SYSTEM_CERTS": "1"}  # the certificates that pip trusts too
    plain |= {name: value for name, value in os.environ.items() if name.startswith(INSTALLING)}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    lines = tuple(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert lines, done.stderr
    return Ran(lines)


def _replaced(file: Path, action: Path) -> Iterable[tuple[str, Path]]:
    """The actions that a workflow uses, and the folder that stands for each."""
    for name in sorted(uses(file)):
        project = name.partition("@")[0]
        if project == "org/quant-gate":
            yield name, action
        elif project != "actions/checkout" and not name.startswith("./"):
            yield name, STUBS / project.partition("/")[2]


def uses(file: Path) -> set[str]:
    """The actions and workflows that a workflow calls, by way of others of its repository too."""
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    steps = (step for job in jobs for step in job.get("steps", ()))
    found = {each["uses"] for each in (*jobs, *steps) if "uses" in each}
    inner = (uses(file.parent / name.rpartition("/")[2]) for name in found if name.startswith("./"))
    return found.union(*inner)
