"""What another evaluator logged, in our own terms: the value that every reader gives back."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from gate.errors import ImportedError
from gate.records import TaskResult, TaskSetup

MAX_RESULTS_BYTES = 256 * 2**20
EXACT = 1e-9
"""How close our mean must come to the logged one for a metric to be a mean over documents."""


class Logged(NamedTuple):
    """One evaluation by somebody else.

    Attributes:
        model: What that evaluator was told.
        kernel: Who ran the model, in words.
        template_sha: SHA-256 of the chat template that was used; None without one.
        date: ISO 8601.
        left_out: What was measured and cannot be compared document by document, and why.
    """

    model: str
    setups: tuple[TaskSetup, ...]
    tasks: tuple[TaskResult, ...]
    kernel: str
    device: str
    dtype: str
    template_sha: str | None
    batch_size: int
    versions: dict[str, str]
    date: str
    duration_s: float
    left_out: tuple[str, ...] = ()


def newest_results(path: Path, hint: str) -> Path:
    """A file of results, or the newest in a directory: their names hold the date.

    Raises:
        ImportedError: The directory holds none.
    """
    if path.is_file():
        return path
    found = sorted(path.rglob("results_*.json"), key=lambda file: file.name)
    if not found:
        raise ImportedError(f"{path} holds no results_*.json", hint)
    return found[-1]


def parsed(path: Path, hint: str) -> Any:
    """A file of results as JSON.

    Raises:
        ImportedError: It cannot be read.
    """
    try:
        if path.stat().st_size > MAX_RESULTS_BYTES:
            raise ImportedError(f"{path} is larger than results are", hint)
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ImportedError(f"{path} cannot be read: {error}", hint) from error


def points(value: Any) -> tuple[float, float] | None:
    """Points and how many there are; None for what is neither a number nor a list of them."""
    if isinstance(value, bool | int | float):
        return float(value), 1.0
    if isinstance(value, list) and value and all(isinstance(v, bool | int | float) for v in value):
        return math.fsum(value), float(len(value))
    return None


def unlike(result: TaskResult, value: Any, evaluator: str) -> str | None:
    """Why a metric is left out: its samples do not give what was logged; None where they do."""
    if isinstance(value, int | float) and math.isclose(result.value, value, abs_tol=EXACT):
        return None
    return (
        f"{result.task} {result.label}: its samples give {result.value:.6g}, {evaluator} {value}, "
        "so it is no mean over documents"
    )
