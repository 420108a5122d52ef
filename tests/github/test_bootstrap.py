"""scripts/action.sh: the environment that it makes, on a machine without a package index."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
MAIN = """
import json, pathlib, sys
import probe
kept = {"argv": sys.argv[1:], "prefix": sys.prefix, "probe": probe.__file__, "path": sys.path}
pathlib.Path("ran.json").write_text(json.dumps(kept))
"""


UV = Path(sys.executable).with_name("uv")
WITHOUT_UV = os.pathsep.join(
    place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "uv").exists()
)
WITH_UV = f"{UV.parent}{os.pathsep}{WITHOUT_UV}"


class Machine:
    """A runner with an action of which only the start is real."""

    def __init__(self, tmp_path: Path) -> None:
        self.action, self.workspace = tmp_path / "action", tmp_path / "workspace"
        self.cache, self.temp, self.wheels = (tmp_path / n for n in ("cache", "temp", "wheels"))
        for path in (self.workspace, self.temp, self.wheels, self.action / "gate"):
            path.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.action / "scripts")
        (self.action / "gate" / "__init__.py").write_text("")
        (self.action / "gate" / "__main__.py").write_text(MAIN)
        self.output = tmp_path / "output"
        self.lock(self.wheel())

    def wheel(self) -> str:
        """Write the one package that is installed; its SHA-256."""
        path = self.wheels / "probe-1.0-py3-none-any.whl"
        about = "probe-1.0.dist-info"
        files = {
            "probe.py": "",
            f"{about}/METADATA": "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": "".join(
                f"{name},,\n" for name in ("probe.py", f"{about}/METADATA", f"{about}/WHEEL")
            ),
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def lock(self, digest: str) -> None:
        (self.action / "requirements.lock").write_text(f"probe==1.0 --hash=sha256:{digest}\n")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        self.output.write_text("")
        plain = {
            "PATH": WITH_UV,
            "HOME": str(self.temp),
            "GITHUB_OUTPUT": str(self.output),
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_TOOL_CACHE": str(self.cache),
            "QUANT_GATE_INPUT_PYTHON": sys.executable,
            "QUANT_GATE_INPUT_WHEELS": str(self.wheels),
        }
        return subprocess.Popen(
            [self.action / "scripts" / "action.sh"],
            cwd=self.workspace, env=plain | environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, **environment: str) -> tuple[int, str]:
        """Exit code and log."""
        process = self.start(**environment)
        log, _ = process.communicate(timeout=120)
        return process.returncode, log

    @property
    def ran(self) -> dict[str, Any]:
        """What the gate saw."""
        return json.loads((self.workspace / "ran.json").read_text())

    def environments(self, place: Path | None = None) -> list[Path]:
        """What lies where environments are kept, but for locks."""
        kept = (place or self.cache) / "quant-gate"
        return [path for path in kept.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_environment_is_made_once_outside_of_the_workspace(machine: Machine) -> None:
    first, second = machine.start(), machine.start()
    logs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), logs
    assert sum("making its Python environment" in log for log in logs) == 1
    (made,) = machine.environments()
    assert machine.ran["argv"] == ["action"]
    assert machine.ran["prefix"] == str(made)
    assert machine.ran["probe"].startswith(str(made))
    # The gate is this checkout's, and the work tree is no place to import from.
    assert machine.ran["path"][0] == str(machine.action)
    assert str(machine.workspace) not in machine.ran["path"]
    assert [path.name for path in machine.workspace.iterdir()] == ["ran.json"]


def test_half_an_environment_is_made_anew(machine: Machine) -> None:
    machine.run()
    (made,) = machine.environments()
    (made / ".complete").unlink()  # as a killed job would leave it
    code, log = machine.run()
    assert code == 0, log
    assert "making its Python environment" in log
    assert machine.environments() == [made]


def test_environments_that_nobody_uses_any_more_are_removed(machine: Machine) -> None:
    month = 31 * 24 * 3600
    for name, age in (("old", month), ("recent", month // 2)):
        kept = machine.cache / "quant-gate" / name / ".complete"
        kept.parent.mkdir(parents=True)
        kept.touch()
        os.utime(kept, (time.time() - age, time.time() - age))
    machine.run()
    (made,) = {path for path in machine.environments() if path.name not in {"old", "recent"}}
    assert {path.name for path in machine.environments()} == {"recent", made.name}
    os.utime(made / ".complete", (0, 0))
    machine.run()
    assert (made / ".complete").stat().st_mtime > time.time() - month


def test_without_uv_pip_installs(machine: Machine) -> None:
    code, log = machine.run(PATH=WITHOUT_UV)
    assert code == 0, log
    (made,) = machine.environments()
    assert machine.ran["probe"].startswith(str(made))


@pytest.mark.parametrize("pin", [f"probe==1.0 --hash=sha256:{'0' * 64}", "probe==1.0"])
def test_other_packages_than_the_locked_are_refused(pin: str, machine: Machine) -> None:
    assert UV.exists(), "uv is part of the development environment"
    (machine.action / "requirements.lock").write_text(f"{pin}\n")
    code, log = machine.run(QUANT_GATE_INPUT_ON_INFRA_ERROR="warn")
    assert (code, machine.output.read_text()) == (0, "status=error\n"), log
    assert "::error title=quant-gate::The packages of quant-gate could not be installed" in log
    assert machine.environments() == []


def test_the_runners_temp_is_used_where_nothing_can_be_kept(machine: Machine) -> None:
    machine.cache.write_text("no directory")
    code, log = machine.run()
    assert code == 0, log
    (made,) = machine.environments(machine.temp)
    assert machine.ran["prefix"] == str(made)


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("no-such-python", "Run: sudo apt-get install python3 python3-venv"),
        ("/bin/false", "quant-gate needs Python 3.11 or newer"),
    ],
)
def test_a_python_that_does_not_do_is_named(python: str, said: str, machine: Machine) -> None:
    code, log = machine.run(QUANT_GATE_INPUT_PYTHON=python)
    assert code == 3
    assert said in log
    assert python in log
    assert machine.output.read_text() == "status=error\n"


def test_a_cancelled_installation_leaves_nothing(machine: Machine) -> None:
    python = machine.temp / "python"
    python.write_text(
        f'#!/bin/bash\ncase "$*" in *"-m venv"*) touch {machine.temp}/installing; sleep 300;; '
        f'*) exec {sys.executable} "$@";; esac\n'
    )
    python.chmod(0o755)
    process = machine.start(QUANT_GATE_INPUT_PYTHON=str(python), PATH=WITHOUT_UV)
    while not (machine.temp / "installing").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert machine.output.read_text() == "status=error\n"
    assert machine.environments() == []


def test_the_lock_is_what_was_tested_and_names_no_place() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pins = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1].split()[0]
        for line in lock.splitlines()
        if "==" in line and not line.startswith(("#", " "))
    }
    tested = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    linux = {name for name in pins if name in tested}
    assert {name: pins[name] for name in linux} == {name: tested[name] for name in linux}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        each.split(">=")[0].split("[")[0].lower().replace("_", "-")
        for each in project["dependencies"]
    }
    assert wanted <= pins.keys()
    assert lock.count("--hash=sha256:") > len(pins)
