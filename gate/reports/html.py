"""The report as one page for a browser, which needs nothing beside itself."""

import re
from collections.abc import Sequence

from gate import pages
from gate.records import Report
from gate.reports import findings, wording
from gate.reports.views import View, view

RANK = ("fail", "inconclusive", "pass")


def render(*reports: Report, home: str | None = None) -> str:
    """The reports of one run: verdict, reason, what to do, then everything that was measured.

    Args:
        reports: In the order in which the checkpoints were named.
        home: Address of a page that links to this one, for a link back.
    """
    if not reports:
        return ""
    views = [view(report) for report in reports]
    page = pages.render(
        "report.html",
        views=views,
        title=_title(views),
        worst=min((each.outcome for each in views), key=RANK.index),
        totals=findings.totals(reports),
        gate_versions=", ".join(dict.fromkeys(report.gate_version for report in reports)),
        date=wording.moment(max(report.date for report in reports)),
        home=home,
    )
    return _inert(page)


def _inert(page: str) -> str:
    """The same page without what a GitHub runner takes for a command when it is printed."""
    page = page.replace("##[", "#&#35;[")
    return re.sub(r"(?m)^([^\S\n]*):(?=:)", r"\1&#58;", page)


def _title(views: Sequence[View]) -> str:
    if len(views) == 1:
        return f"{views[0].word}: {views[0].name}"
    return f"{len(views)} checkpoints"
