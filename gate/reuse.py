"""Verdicts that are kept on this machine: the same bytes are not judged twice by the same rules.

A label, a merge queue or a second try starts the gate again and changes nothing of what it judges.
The kept report is named by everything that decides it. Who can write to the directory can write a
verdict: it belongs to the account that runs the gate, like its configuration.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from gate import __version__, preflight
from gate.checkpoint import CONFIG_MAX_BYTES, Checkpoint
from gate.errors import CheckpointError, GateError
from gate.records import Report, read, write
from gate.request import Request, Subject

MOST_REPORTS = 200
"""Kept at a time; beyond, the one that was used longest ago goes."""

MOST_BYTES = 64 * 2**20
"""Of one kept report: what is larger was not written by this."""


class Kept:
    """The place of one verdict.

    Args:
        directory: Holds all of them.
        request: What was asked; its `reuse` says whether a kept verdict will do.
        subject: The opened checkpoint.
    """

    def __init__(self, directory: Path, request: Request, subject: Subject) -> None:
        self.reuse = request.reuse
        key = None if self.reuse is None else _key(request, subject)
        self.path = directory / f"{key}.json" if key else None

    def report(self) -> Report | None:
        """The kept report; None where there is none, it is unreadable, or another is wanted."""
        if self.path is None or not self.reuse:
            return None
        try:
            if self.path.stat().st_size > MOST_BYTES:
                return None
            found = read(self.path, Report)
            os.utime(self.path)
        except (OSError, GateError):
            return None
        return found

    def keep(self, report: Report) -> None:
        """Keep a report, and let the oldest ones go."""
        if self.path is None:
            return
        # One that cannot be kept is a verdict all the same.
        with contextlib.suppress(OSError, GateError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(self.path, report)
            for _, old in sorted(map(_used, self.path.parent.glob("*.json")))[:-MOST_REPORTS]:
                old.unlink(missing_ok=True)


def again(kept: Report, now: Report) -> Report:
    """A kept report as the answer to this request.

    Args:
        kept: What was measured and decided then.
        now: The same checkpoint, as this request names and sees it.
    """
    same = ("checkpoint", "revision", "files", "command", "policy", "date", "duration_s")
    fresh = {name: getattr(now, name) for name in same}
    return kept.model_copy(update={**fresh, "reused_from": kept.reused_from or kept.date})


def _used(path: Path) -> tuple[float, Path]:
    try:
        return path.stat().st_mtime, path
    except OSError:  # gone meanwhile: another run cleaned up
        return 0.0, path


def _key(request: Request, subject: Subject) -> str | None:
    """SHA-256 over everything that decides the verdict; None where weights cannot be read."""
    settings = request.settings
    try:
        weights, others = subject.weights_digest, _other_files(subject.checkpoint)
    except (OSError, CheckpointError):
        return None
    decides = {
        "gate": __version__,
        "versions": preflight.versions(),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "weights": weights,
        "others": others,
        "files": subject.files,
        "reference": subject.reference_digest,
        "rule": subject.rule.model_dump(mode="json", exclude={"path"}),
        "settings": settings.model_dump(mode="json"),
        "policy": request.policy_digest,
        "baseline": _named_baseline(request.baseline),
        "full": request.full,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _other_files(checkpoint: Checkpoint) -> list[tuple[str, str | int]]:
    """Name and SHA-256 of what lies beside the weights; of what is too large to be read, its size.

    An entry that is no file counts by its name.
    """
    found: list[tuple[str, str | int]] = []
    for name in sorted(set(checkpoint.store.names) - set(checkpoint.weight_files)):
        size = checkpoint.store.size(name) if name in checkpoint.files else -1
        if 0 <= size <= CONFIG_MAX_BYTES:
            found.append((name, hashlib.sha256(checkpoint.store.read(name)).hexdigest()))
        else:
            found.append((name, size))
    return found


def _named_baseline(path: Path | None) -> str | None:
    """SHA-256 of a baseline that was named beside the settings; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else None
    except OSError:
        return None
