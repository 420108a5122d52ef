"""Where reports come from: files, and the history that a store keeps."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from gate import history
from gate.dashboard.rows import Seen
from gate.records import Entry
from gate.report import stored
from gate.store import Store


def filed(files: Iterable[Path]) -> Iterator[Seen]:
    """The reports in files that `gate check --report json=` or the action wrote.

    Raises:
        GateError: One is missing, unreadable, newer, or holds none.
    """
    for file in files:
        kept = stored(file)
        run = kept.run
        pull_request = f"pull request {run.pull_request}" if run and run.pull_request else ""
        for report in kept.reports:
            yield Seen(report, pull_request, _proposed(run.event if run else None))


def kept(store: Store, entries: Iterable[Entry]) -> Iterator[Seen]:
    """The reports that a store's history names.

    Raises:
        StoreError: The store, or one of them, cannot be read.
    """
    for entry in entries:
        facts = entry.facts
        yield Seen(
            history.report(store, entry), facts.get("branch", ""), _proposed(facts.get("event"))
        )


def _proposed(event: str | None) -> bool:
    return event is not None and event not in history.LANDED
