"""The user's Python that evaluates: whether it can run the gate, and what it lacks."""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gate.errors import BackendUnavailableError

INSTALLATION = Path(__file__).parent.parent.parent
"""The checkout from which a process imports the gate."""

TIMEOUT_S = 60
SHOWN = ("torch", "transformers", "lm-eval")

_PROBE = """
import importlib.metadata, json, sys
found = {d.name: d.version for d in importlib.metadata.distributions() if d.name}
print(json.dumps([sys.version_info[:3], found]))
"""


class Interpreter(NamedTuple):
    """A Python and what is installed for it.

    Attributes:
        command: As the user named it.
        installed: Distribution, in its normal form, to version.
    """

    command: str
    version: tuple[int, int, int]
    installed: Mapping[str, str]

    def missing(self, *, evaluating: bool) -> list[str]:
        """What has to be installed so that it can run the gate, or also evaluate with it."""
        own, evaluation = _requirements()
        wanted = own + evaluation if evaluating else own
        return [str(each) for each in wanted if not self._has(each)]

    def install_command(self) -> str:
        """The command that installs what is missing."""
        return shlex.join([self.command, "-m", "pip", "install", *self.missing(evaluating=True)])

    def __str__(self) -> str:
        """One line of versions."""
        found = [f"{name} {self.installed[name]}" for name in SHOWN if name in self.installed]
        return ", ".join([f"{self.command}: Python {'.'.join(map(str, self.version))}", *found])

    def _has(self, wanted: Requirement) -> bool:
        version = self.installed.get(canonicalize_name(wanted.name))
        return version is not None and wanted.specifier.contains(version, prereleases=True)


def find(command: str, environment: Mapping[str, str]) -> Interpreter:
    """Ask a Python what it is.

    Raises:
        BackendUnavailableError: It is none, is too old, or lacks what the gate imports.
    """
    hint = "Name the Python of an environment with quant-gate[eval] in the input eval-python."
    try:
        done = subprocess.run(
            [command, "-P", "-c", _PROBE],
            env=dict(environment), capture_output=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
        version, installed = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise BackendUnavailableError(
            f"eval-python is {command}, which is no Python 3.11 or newer"
            + (f": {last[0][:200]}" if last else ""),
            hint,
        ) from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailableError(
            f"eval-python is {command}, which cannot be run: {error}", hint
        ) from error
    normal: dict[str, str] = {
        canonicalize_name(name): str(number) for name, number in installed.items()
    }
    found = Interpreter(command, tuple(version), normal)
    missing = found.missing(evaluating=False)
    if missing:
        names = ", ".join(re.split(r"[<>=!~\[]", each)[0] for each in missing)
        raise BackendUnavailableError(
            f"{command} lacks what quant-gate imports: {names}", f"Run: {found.install_command()}"
        )
    return found


@cache
def _requirements() -> tuple[list[Requirement], list[Requirement]]:
    """What the gate imports, and what evaluation needs besides."""
    project = tomllib.loads((INSTALLATION / "pyproject.toml").read_text(encoding="utf-8"))
    table = project["project"]
    extra = table["optional-dependencies"]["eval"]
    return [Requirement(each) for each in table["dependencies"]], [
        Requirement(each) for each in extra
    ]
