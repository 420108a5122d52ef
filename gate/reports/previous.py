"""What has become of the figures of what passed last, the same in every form; not yet escaped."""

from gate.records import Comparison, Report
from gate.reports import metrics
from gate.reports.wording import VERDICTS

TITLE = "Against what passed last"

COLUMNS = (
    "metric",
    "passed last",
    "now",
    "change",
    "retained",
    "95 % interval",
    "limit",
    "outcome",
)


def rows(report: Report) -> list[tuple[str, ...]]:
    """One row a metric that gates, on the documents that both have."""
    return [_row(found) for found in report.previous.comparisons] if report.previous else []


def _row(found: Comparison) -> tuple[str, ...]:
    name, before, now, retained, interval, limit, _ = metrics.cells(found)
    digits = 2 if found.losses is None else 3
    change = f"{found.delta:+.{digits}f}"
    judged = VERDICTS[found.outcome] if found.outcome is not None else ""
    return (name, before, now, change, retained, interval, limit, judged)
