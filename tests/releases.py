"""One checkpoint, version after version: other weights and other scores under the same name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from checkpoints import edit_tensors
from github_repository import DOCUMENTS, NAME, SETTINGS, Repository

from gate import baseline, history, records
from gate.checkpoint import open_checkpoint
from gate.cli import cli
from gate.containers import CONTAINERS
from gate.records import Entry, EvalResult, Report
from gate.store import Store

MODEL = "quantized_model"


class Releases:
    """A repository with a store; its checkpoint is judged by stored answers.

    Args:
        repository: With a sound change checked out; the current directory.
        store: The address of the store that its settings name.
    """

    def __init__(self, repository: Repository, store: str) -> None:
        self.root, self.address = repository.root, store
        self.released = 0
        self.settings()

    @property
    def store(self) -> Store:
        return Store(self.address)

    def settings(self, **more: object) -> None:
        """Write the settings; `more` are further keys."""
        keys = {"store": self.address, **more}
        text = "".join(f"{key}: {value}\n" for key, value in keys.items())
        (self.root / "quant-gate.yaml").write_text(SETTINGS + text)

    def version(self, scores: Sequence[float] | int) -> None:
        """Other weights, with these scores; a number means so many wrong ones at the end."""
        if isinstance(scores, int):
            scores = [1.0] * (DOCUMENTS - scores) + [0.0] * scores
        edit_tensors(self.root / MODEL, _next)
        digest = baseline.weights_digest(open_checkpoint(self.root / MODEL, CONTAINERS))
        answers = records.read(self.root / "answers.json", EvalResult)
        update = {"weights_digest": digest, "tasks": (results.task(scores),)}
        records.write(self.root / "answers.json", answers.model_copy(update=update))

    def check(self, *options: str, code: int = 0) -> Report:
        """The report that the command stores."""
        file = self.root.parent / "report.json"
        file.unlink(missing_ok=True)
        arguments = ["check", MODEL, "--report", f"json={file}", *options]
        assert cli.main(arguments, standalone_mode=False) == code
        return records.read(file, Report)

    def release(self, scores: Sequence[float] | int, code: int = 0) -> tuple[Report, Entry]:
        """Judge a version, and add it to the history as one of its own day."""
        self.version(scores)
        self.released += 1
        date = f"2026-01-{self.released:02}T00:00:00+00:00"
        report = self.check(code=code).model_copy(update={"date": date})
        return report, history.add(self.store, report)


def on_github(directory: Path, name: str, payload: Mapping[str, Any], run: int = 77) -> dict:
    """The environment of a run that an event started."""
    file = directory / f"event-{name}-{run}.json"
    file.write_text(json.dumps(payload))
    return {
        "CI": "true",
        "GITHUB_EVENT_NAME": name,
        "GITHUB_EVENT_PATH": str(file),
        "GITHUB_RUN_ID": str(run),
        "GITHUB_REPOSITORY": NAME,
    }


def _next(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    dtype, shape, data = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = dtype, shape, bytes([(data[0] + 1) % 256]) + data[1:]
