"""The user's own questions as an lm-eval task: lines of a file, and a scorer for each kind.

Every scorer has a task file here. Whatever was answered, scoring ends: patterns are RE2's, whose
time is linear in the text, and a schema refers to nothing outside itself.
"""

from pathlib import Path

from gate.harness.own.rows import rows
from gate.settings import Scorer


def task_file(scorer: Scorer) -> Path:
    """The task file that asks for lines of this kind and scores the answers."""
    return Path(__file__).with_name(f"{scorer}.yaml")


__all__ = ["rows", "task_file"]
