"""The rules of the house, executed."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import build

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "gate").rglob("*.py"))
HEAVY = {"torch", "transformers", "requests", "huggingface_hub", "lm_eval", "modelopt", "scipy"}
MOST_LINES = 300
MOST_LINES_OF_FUNCTION = 50
LONGER = {
    "gate/baseline.py": "fingerprint and comparison name the same fields: they change together",
}
"""File or `file:function` to the reason why it may be longer."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def definitions(
    tree: ast.AST,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_for_odds_and_ends(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    long = {name(path)} if len(text.splitlines()) > MOST_LINES else set()
    for node in definitions(ast.parse(text)):
        lines = (node.end_lineno or 0) - node.lineno + 1
        if not isinstance(node, ast.ClassDef) and lines > MOST_LINES_OF_FUNCTION:
            long.add(f"{name(path)}:{node.name}")
    assert long <= LONGER.keys()


def test_every_exception_to_the_sizes_exists() -> None:
    assert {entry.partition(":")[0] for entry in LONGER} <= {name(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_public_definitions_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_every_rule_file_holds_one_rule_of_the_table() -> None:
    from gate.rules import RULES

    files = {path.stem for path in (ROOT / "gate" / "rules").glob("*.py")} - {"__init__"}
    assert {rule.id for rule in RULES} == {stem.replace("_", "-") for stem in files}
    assert {type(rule).__module__ for rule in RULES} == {f"gate.rules.{stem}" for stem in files}
    assert len(RULES) == len(files)


@pytest.mark.parametrize("arguments", [["--help"], ["lint", "CHECKPOINT"]], ids=" ".join)
def test_light_verbs_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    checkpoint = str(build(tmp_path / "tiny"))
    code = (
        "import sys\n"
        "from gate.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as done:\n"
        f"    print('loaded:', *sorted({HEAVY!r} & sys.modules.keys()))\n"
        "    raise\n"
    )
    given = [checkpoint if argument == "CHECKPOINT" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_ends_of_the_transformers_range_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = (ROOT / "Makefile").read_text(encoding="utf-8").split("LOWEST_TRANSFORMERS := ")[1]
    highest = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\ntransformers==")[1]
    ranged = next(item for item in project["optional-dependencies"]["eval"] if "transf" in item)
    major, minor, _ = highest.split()[0].split(".")
    assert ranged == f"transformers>={lowest.split()[0]},<{major}.{int(minor) + 1}"


def test_pins_are_exact_and_name_no_place() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        project, _, version = line.partition("==")
        assert project and version, line
        assert not set("/:@+ ;") & set(line), line
