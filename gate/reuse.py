"""Verdicts that are kept: the same bytes are not judged twice by the same rules.

A label, a merge queue or a second try starts the gate again and changes nothing of what it judges.
The kept report is named by everything that decides it. Who can write to the directory can write a
verdict: it belongs to the account that runs the gate, like its configuration.

Runs about a change share verdicts across machines, in the store of the settings. Whoever can start
such a run can write there what they like, so no other run believes it: what the default branch or a
tag says, from the history to a release, is judged where it is said.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from gate import __version__, baseline, event, history, preflight, records, store
from gate.checkpoint import CONFIG_MAX_BYTES, Checkpoint
from gate.errors import BaselineError, CheckpointError, GateError
from gate.event import Event
from gate.records import Label, Report, read, write
from gate.request import Request, Subject
from gate.store import Store

MOST_REPORTS = 200
"""Kept at a time; beyond, the one that was used longest ago goes."""

SHARING = frozenset({"pull_request", "merge_group"})
"""Events whose workflow is the change's own: what it could forge here, it could say anyway."""

MOST_BYTES = 64 * 2**20
"""Of one kept report: what is larger was not written by this."""


class Kept:
    """The place of one verdict.

    Args:
        directory: Holds all of them.
        request: What was asked; its `reuse` says whether a kept verdict will do.
        subject: The opened checkpoint.
        measure: What else decides the verdict.
    """

    def __init__(
        self, directory: Path, request: Request, subject: Subject, measure: str | None = None
    ) -> None:
        self.request, self.subject = request, subject
        self.key = None if request.reuse is None else _key(request, subject, measure)
        self.path = directory / f"{self.key}.json" if self.key else None

    def report(self) -> Report | None:
        """The kept report; None where there is none, it is unreadable, or another is wanted."""
        if not self.request.reuse:
            return None
        found = self._here() or self._shared()
        return found if found is not None and self._by_a_young_baseline(found) else None

    def keep(self, report: Report) -> None:
        """Keep a report, and let the oldest ones go."""
        # One that cannot be kept is a verdict all the same.
        with contextlib.suppress(OSError, GateError):
            self._keep_here(report)
        with contextlib.suppress(OSError, GateError):
            self._share(report)

    def _here(self) -> Report | None:
        """What this machine kept."""
        if self.path is None:
            return None
        try:
            if self.path.stat().st_size > MOST_BYTES:
                return None
            found = read(self.path, Report)
            os.utime(self.path)
        except (OSError, GateError):
            return None
        return found

    def _keep_here(self, report: Report) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.path, report)
        for _, old in sorted(map(_used, self.path.parent.glob("*.json")))[:-MOST_REPORTS]:
            old.unlink(missing_ok=True)

    def _shared(self) -> Report | None:
        """What another run about the same change kept in the store."""
        try:
            started = event.read(os.environ)
            shared = _store(self.request, started)
            if shared is None or self.key is None:
                return None
            for entry in shared.newest("candidate", self.key):
                content = shared.document(entry)
                if len(content) > MOST_BYTES or not _from_here(entry.facts, started):
                    continue
                found = records.decode(content, Report, Path(f"verdict {entry.short}"))
                if self._is_about_this(found):
                    return found
        except (OSError, GateError):
            return None
        return None

    def _share(self, report: Report) -> None:
        started = event.read(os.environ)
        shared = _store(self.request, started)
        if shared is None or self.key is None:
            return
        facts = {"outcome": report.verdict.outcome, "run": str(report.run_id or "")}
        facts |= history.origin(started)
        label = Label(
            kind="candidate",
            key=self.key,
            model=report.checkpoint,
            revision=report.revision,
            date=report.date,
            facts=facts,
        )
        shared.put(label, report.model_dump_json().encode())

    def _by_a_young_baseline(self, found: Report) -> bool:
        """Whether the settings would still allow the baseline that it was compared with."""
        if found.baseline is None:
            return True
        try:
            baseline.require_young(found.baseline.date, self.request.settings.max_age, "")
        except BaselineError:
            return False
        return True

    def _is_about_this(self, found: Report) -> bool:
        """Whether a report speaks of these bytes and settings, wherever it lies."""
        if found.settings != self.request.settings.model_dump(mode="json"):
            return False
        if found.evaluation is None:
            return found.verdict.outcome == "fail"
        return (
            found.digests == self.subject.digests
            and found.evaluation.weights_digest == self.subject.weights_digest
            and found.policy_digest == self.request.policy_digest
        )


def again(kept: Report, now: Report) -> Report:
    """A kept report as the answer to this request.

    Args:
        kept: What was measured and decided then.
        now: The same checkpoint, as this request names and sees it.
    """
    same = (
        "checkpoint", "revision", "files", "command", "policy", "run_id", "date", "duration_s",
    )  # fmt: skip
    fresh = {name: getattr(now, name) for name in same}
    origin = {
        "reused_from": kept.reused_from or kept.date,
        "reused_run": kept.reused_run or kept.run_id,
        "previous": None,  # another may have passed since
    }
    return kept.model_copy(update={**fresh, **origin})


def _store(request: Request, started: Event | None) -> Store | None:
    """Where verdicts are shared; None where one from there must not be believed.

    Args:
        request: Whose settings name the store.
        started: What started this run on GitHub; None elsewhere.
    """
    address = request.settings.store
    if address is None:
        return None
    if started is None:
        # A pipeline that is not GitHub's does not say whether it is about a change.
        return None if os.environ.get("CI") else store.at(address, request.root)
    if started.fork or started.name not in SHARING:
        return None
    trusted = request.trusted
    if started.name == "merge_group" and (trusted is None or trusted.record.advisory):
        return None
    return store.at(address, request.root)


def _from_here(facts: Mapping[str, str], started: Event | None) -> bool:
    """Whether a run about a change of this repository kept it; anywhere else, whoever did."""
    return started is None or (
        facts.get("repository") == started.repository and facts.get("event") in SHARING
    )


def _used(path: Path) -> tuple[float, Path]:
    try:
        return path.stat().st_mtime, path
    except OSError:  # gone meanwhile: another run cleaned up
        return 0.0, path


def _key(request: Request, subject: Subject, measure: str | None) -> str | None:
    """SHA-256 over everything that decides the verdict; None where that is not known."""
    settings = request.settings
    # What a server serves may change while these files stay the same.
    if settings.backend == "server":
        return None
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
        "measure": measure,
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
