"""Reports that are kept: what became of each checkpoint, run after run.

They lie in the store of the baselines, apart from what pull requests share. What last passed is the
measure of a release: on GitHub only what the default branch judged counts, whatever else was added.
"""

import hashlib
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from gate import event, records
from gate.errors import StoreError
from gate.event import Event
from gate.records import Entry, Label, Report
from gate.store import Store

LANDED = frozenset({"push", "schedule", "workflow_dispatch"})
"""Events whose commit is their branch's own; any other may run for what somebody proposes."""

KEPT_WEIGHTS = 2
"""Of each checkpoint: what last passed, and what had passed before that, for when it is judged."""


SHARED_FOR = timedelta(days=30)
"""How long a verdict stays that a pull request's runs share."""


class Released(NamedTuple):
    """What last passed under a checkpoint's name.

    Attributes:
        content: SHA-256 of the report.
    """

    content: str
    report: Report


def add(store: Store, report: Report) -> Entry:
    """Keep a report; the same one twice is one entry.

    Raises:
        StoreError: The store cannot be written.
        GateError: The event that started this run cannot be read.
    """
    label = Label(
        kind="report",
        key=_key(shown(report)),
        model=report.checkpoint,
        revision=report.revision,
        date=report.date,
        facts=_facts(report, event.read(os.environ)),
    )
    return store.put(label, report.model_dump_json().encode())


def entries(store: Store, checkpoint: str | None = None) -> tuple[Entry, ...]:
    """What is kept, newest first.

    Args:
        checkpoint: Its name, as reports show it; None for all.

    Raises:
        StoreError: The store, or an entry in it, cannot be read.
    """
    return store.entries("report", None if checkpoint is None else _key(_plain(checkpoint)))


def report(store: Store, entry: Entry) -> Report:
    """The report of an entry.

    Raises:
        StoreError: It is missing or damaged.
        GateError: It is of a newer version, or no report.
    """
    return records.decode(store.document(entry), Report, Path(f"report {entry.short}"))


def named(store: Store, name: str) -> Entry:
    """The report of a digest's beginning, or the newest one about a checkpoint.

    Raises:
        StoreError: There is none, or several digests begin like that.
    """
    by_digest = [e for e in entries(store) if len(name) >= 4 and e.content.startswith(name)]
    if len({entry.content for entry in by_digest}) > 1:
        raise StoreError(f"several reports begin with {name}", "Give more of the digest.")
    for entry in (*by_digest, *entries(store, name)):
        return entry
    raise StoreError(
        f"{store.shown} holds no report {name}", "See what it holds: gate history list"
    )


def name(
    checkpoint: str, revision: str | None, files: Sequence[str], runtime: str | None = None
) -> str:
    """By what a checkpoint is known from run to run: without its revision, with its first file.

    Args:
        runtime: How it is quantized at load, see `Report`: that is another model.
    """
    pin = f"@{revision}" if revision else ""
    loaded = f", quantized at load: {runtime}" if runtime else ""
    return _plain("/".join([checkpoint.removesuffix(pin), *files[:1]])) + loaded


def shown(report: Report) -> str:
    """The `name` of what a report is about."""
    return name(report.checkpoint, report.revision, report.files, report.runtime_quantization)


def released(store: Store, name: str, weights: str) -> Released | None:
    """What passed last under a name: other weights, measured, by settings that decide.

    Args:
        store: That holds the history.
        name: See `name`.
        weights: Digest of those that are judged now.

    Raises:
        StoreError: The store, or an entry in it, cannot be read.
        GateError: A report is of a newer version, or none.
    """
    started = event.read(os.environ)
    for entry in store.newest("report", _key(name)):
        facts = entry.facts
        if facts.get("outcome") != "pass" or facts.get("weights", weights) == weights:
            continue
        if "advisory" in facts or not _landed(facts, started):
            continue
        kept = report(store, entry)
        # An entry is short and says what to look at; what counts is the report itself.
        if _passed(kept) and shown(kept) == name and _weights(kept) != weights:
            return Released(entry.content, kept)
    return None


def prune(store: Store, keep: int, max_age: timedelta) -> int:
    """Forget old reports, and verdicts that pull requests shared; how many.

    Args:
        keep: How many reports of each checkpoint and branch stay.
        max_age: Older reports go, too.

    Raises:
        StoreError: The store cannot be read or written.
    """
    now = datetime.now(UTC)
    gone = [*superseded(entries(store), keep, now - max_age)]
    gone += [e for e in store.entries("candidate") if moment(e) < now - SHARED_FOR]
    for entry in gone:
        store.remove(entry)
    return len(gone)


def superseded(reports: Sequence[Entry], keep: int, before: datetime) -> Iterator[Entry]:
    """Those that may go: beyond the newest few of their checkpoint and branch, or too old.

    What passed last stays whatever its age: the next release is measured against it.

    Args:
        reports: Newest first.
        keep: How many of each stay.
        before: Older ones go.
    """
    counts: Counter[tuple[str, str]] = Counter()
    passed: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in reports:
        place = (entry.key, entry.facts.get("branch", ""))
        counts[place] += 1
        weights, known = entry.facts.get("weights"), passed[place]
        if entry.facts.get("outcome") == "pass" and weights and weights not in known:
            known.add(weights)
            if len(known) <= KEPT_WEIGHTS:
                continue
        if counts[place] > keep or moment(entry) < before:
            yield entry


def moment(entry: Entry) -> datetime:
    """When what an entry names was measured; of what has no date, still to come."""
    try:
        return datetime.fromisoformat(entry.date).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC)


def _facts(report: Report, started: Event | None) -> dict[str, str]:
    """What a look-up needs; where and why it was added is this run's, not the report's word."""
    result, policy = report.evaluation, report.policy
    found = {
        "outcome": report.verdict.outcome,
        "stage": report.verdict.stage,
        "advisory": "yes" if policy is not None and policy.advisory else None,
        "weights": result.weights_digest if result else None,
        "format": report.lint.format or report.runtime_quantization,
        "policy": report.policy_digest,
        "measured": ", ".join(setup.task for setup in result.setups) if result else None,
        "device": result.device if result else None,
        "run": str(report.run_id) if report.run_id else None,
    }
    return {key: value for key, value in found.items() if value} | origin(started)


def origin(started: Event | None) -> dict[str, str]:
    """Where on GitHub something is kept from, as far as that is known."""
    if started is None:
        return {}
    found = {
        "repository": started.repository,
        "event": started.name,
        "branch": started.head_ref,
    }
    return {key: value for key, value in found.items() if value}


def _landed(facts: dict[str, str], started: Event | None) -> bool:
    """Whether a report counts here: on GitHub those of this repository's default branch."""
    return started is None or (
        facts.get("event") in LANDED
        and facts.get("repository") == started.repository
        and facts.get("branch") == (started.default_branch or "")
    )


def _passed(report: Report) -> bool:
    advisory = report.policy is not None and report.policy.advisory
    return report.verdict.outcome == "pass" and not advisory and report.evaluation is not None


def _weights(report: Report) -> str | None:
    return report.evaluation.weights_digest if report.evaluation else None


def _plain(name: str) -> str:
    """A path in one spelling."""
    return posixpath.normpath(name)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
