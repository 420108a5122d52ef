"""Every kept report on one page: what is releasable, at what size, and how it came to be.

The page is a directory of files that need no server: `index.html`, and in `reports/` a page of
each of the newest reports.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gate import pages
from gate.dashboard import charts, labels
from gate.dashboard.families import MOST_FAMILIES, families, formats, newest
from gate.dashboard.rows import Row, Seen, row
from gate.dashboard.site import ReportPages
from gate.dashboard.sources import filed, kept
from gate.dashboard.table import table
from gate.records import now, write_text
from gate.reports import wording

__all__ = ["Built", "Seen", "dashboard", "filed", "kept"]

MOST_NAMED = 8
"""Checkpoints that the first lines name as not releasable."""


class Built(NamedTuple):
    """What was written.

    Attributes:
        pages: How many reports have a page of their own.
    """

    reports: int
    checkpoints: int
    releasable: int
    pages: int


def dashboard(reports: Iterable[Seen], output: Path, *, per_checkpoint: int = 5) -> Built:
    """Write the dashboard into a directory; what an earlier run left there goes.

    Args:
        reports: In any order, of which each is held only as long as it is looked at. One that
            comes twice counts once.
        output: Made where it is missing.
        per_checkpoint: So many of the newest reports of each checkpoint get a page.

    Raises:
        GateError: The directory cannot be written.
    """
    written = ReportPages(output / "reports", per_checkpoint)
    rows: dict[str, Row] = {}
    for seen in reports:
        known = row(seen)
        if known.digest not in rows:
            rows[known.digest] = known
            written.add(known, seen.report)
    latest = newest(rows.values())
    write_text(output / "index.html", _index(list(rows.values()), latest, written, per_checkpoint))
    written.clear()
    return Built(
        reports=len(rows),
        checkpoints=len(latest),
        releasable=sum(not found.obstacle for found in latest),
        pages=len(written.names),
    )


def _index(rows: list[Row], latest: list[Row], written: ReportPages, per_checkpoint: int) -> str:
    found = families(rows)
    blocked = [known for known in latest if known.obstacle]
    return pages.render(
        "dashboard.html",
        made=now(),
        reports=len(rows),
        checkpoints=len(latest),
        releasable=len(latest) - len(blocked),
        blocked=blocked[:MOST_NAMED],
        blocked_more=len(blocked[MOST_NAMED:]),
        families=found[:MOST_FAMILIES],
        families_more=len(found[MOST_FAMILIES:]),
        formats=formats(rows),
        table=table(rows, latest, written.names),
        per_checkpoint=per_checkpoint,
        pages=len(written.names),
        frame=charts.FRAME,
        small=charts.SMALL_FRAME,
        shortened=labels.shortened,
        wording=wording,
    )
