"""The wheel works away from the checkout, with its schemas and its suite inside."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import build

ROOT = Path(__file__).parent.parent
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python with only the built wheel's `gate` on its path, outside the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(place / "site"), str(wheel)], check=True)

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(place / "site")},
            capture_output=True,
            text=True,
            check=False,
        )

    where = python("-c", "import gate; print(gate.__file__)").stdout
    assert where.startswith(str(place / "site"))
    return python


def test_help(installed: Python) -> None:
    done = installed("-m", "gate", "--help")
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout


def test_lint(installed: Python, tmp_path: Path) -> None:
    done = installed("-m", "gate", "lint", str(build(tmp_path / "tiny")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("schema", ["hf_quant_config", "settings", "eval-result", "report"])
def test_schemas_are_packaged(installed: Python, schema: str) -> None:
    code = (
        "from importlib import resources; from gate import schema\n"
        f"assert (resources.files('gate') / 'schemas' / '{schema}.schema.json').is_file()\n"
        f"print(schema.load('{schema}')['$schema'])"
    )
    done = installed("-c", code)
    assert done.stdout.strip() == "https://json-schema.org/draft/2020-12/schema", done.stderr


def test_the_workflow_is_packaged(installed: Python) -> None:
    code = (
        "from importlib import resources; from gate import init\n"
        "assert (resources.files('gate') / 'workflows' / init.TEMPLATE).is_file()\n"
        "print(init.workflow(), end='')"
    )
    done = installed("-c", code)
    assert done.stdout == (ROOT / "workflows" / "pull-request.yml").read_text(), done.stderr


def test_suite_is_packaged(installed: Python) -> None:
    code = (
        "from importlib import resources\n"
        "print(len((resources.files('gate') / 'suites' / 'demo_ifeval.jsonl').read_bytes()))"
    )
    assert int(installed("-c", code).stdout) > 10_000


def test_light_install_needs_no_model_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {item.split(">")[0] for item in project["dependencies"]}
    assert not names & {"torch", "transformers", "lm-eval", "nvidia-modelopt", "accelerate"}
