"""Local documents in place of a task's data set: JSON Lines of the user's own."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from gate.errors import SettingsError
from gate.harness import own
from gate.harness.task_files import TaskFile
from gate.settings import Scorer


def with_documents(
    task: TaskFile, documents: Path, directory: Path, scorer: Scorer | None = None
) -> tuple[Path, str]:
    """Write a task file that asks the same of local documents.

    lm-eval 0.4.13 does not merge a dict of overrides over a named task, but a file may include
    another. Few-shot examples come from the same documents, the one being asked left out, which
    lm-eval does where both splits have one name.

    Args:
        documents: JSON Lines, one document a line, as the data set's rows.
        directory: Where to write; also keeps the data set's cache, so that a changed file is
            never answered from an older one.
        scorer: Of questions of the user's own, whose lines have a shape of their own.

    Returns:
        The written file, and the SHA-256 of the documents.

    Raises:
        SettingsError: The documents cannot be read.
    """
    content, lines = _json_lines(documents)
    digest = hashlib.sha256(content).hexdigest()
    copy = directory / f"{digest}.jsonl"
    copy.write_bytes(own.rows(documents, lines, scorer) if scorer else content)
    fewshot = task.config.get("fewshot_config")
    fewshot = fewshot if isinstance(fewshot, dict) else {}
    splits = (
        fewshot.get("split"),
        task.config.get("test_split"),
        task.config.get("validation_split"),
    )
    split = next((name for name in splits if name), "test")
    written = {
        "include": str(task.path),
        "custom_dataset": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(copy)}, "cache_dir": str(directory)},
        "training_split": None,
        "validation_split": None,
        "test_split": split,
        "fewshot_split": None if "samples" in fewshot else split,
    }
    name = hashlib.sha256(f"{task.path}{digest}".encode()).hexdigest()
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    return path, digest


def _json_lines(path: Path) -> tuple[bytes, list[tuple[int, dict[str, Any]]]]:
    """The file, and each line's number and object."""
    hint = "Write one JSON object a line."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"documents {path} cannot be read: {error.strerror}",
            "Mend the path in `documents` or `jsonl`.",
        ) from error
    lines = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise SettingsError(f"documents {path}, line {number}, is no JSON object", hint)
        lines.append((number, parsed))
    if not lines:
        raise SettingsError(f"documents {path} is empty", hint)
    return content, lines
