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


BACKENDS = (format_table.NATIVE, format_table.VLLM, format_table.SERVER)
NAMED = {row[column] for row in ROWS for column in ("lint", "reference") if column in row}


@pytest.mark.parametrize("named", sorted({*NAMED, *BACKENDS}))
def test_the_test_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in found if name else any(n.startswith("test_") for n in found)


def test_every_format_has_its_row() -> None:
    shown = {row.get("method") for row in ROWS}
    for form in FORMATS:
        name = OTHER_NAMES.get(form.name, form.name)
        assert name in shown or (form.name in METHODS and "recognised" in shown), form.name
