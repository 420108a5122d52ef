"""docs/statistics.md says what the rules do."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_exact_figures_of_the_document_are_those_of_the_code() -> None:
    program = ROOT / "benchmarks" / "verdict_figures.py"
    done = subprocess.run(
        [sys.executable, str(program), "--check", "--exact"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
