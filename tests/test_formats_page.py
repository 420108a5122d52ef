"""docs/formats.md: every cell that says yes leads to a test that there is."""

import ast
import sys
from pathlib import Path

import pytest

from gate.formats import FORMATS
from gate.formats.recognised import METHODS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import format_table  # noqa: E402

ROWS = format_table.read()
OTHER_NAMES = {"fbgemm_fp8": "fp8"}
"""Formats that share a row."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["formats"][:30])
def test_the_tests_are_there(row: dict[str, str]) -> None:
    for column in ("lint", "reference"):
        if column in row:
            file, _, name = row[column].partition("::")
            tree = ast.parse((ROOT / file).read_text())
            found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in found if name else any(n.startswith("test_") for n in found)


def test_every_format_has_its_row() -> None:
    shown = {row.get("method") for row in ROWS}
    for form in FORMATS:
        name = OTHER_NAMES.get(form.name, form.name)
        assert name in shown or (form.name in METHODS and "recognised" in shown), form.name
