"""One report in one row: the texts and figures that the dashboard shows of it."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from gate import history
from gate.records import Comparison, Outcome, Report
from gate.reports import wording
from gate.reports.wording import plain
from gate.verdict import DRIFT, SPEED

NO_FAMILY = "No baseline"
UNQUANTIZED = "unquantized"
DIGITS = 16
"""Of a report's digest, by which its page is named."""

MAX_BYTES = 1 << 60


class Seen(NamedTuple):
    """A report, and where it comes from.

    Attributes:
        branch: Or the pull request; empty where that is not known.
        proposed: Whether it is about what somebody proposes, not about what a branch has.
    """

    report: Report
    branch: str = ""
    proposed: bool = False


class Measure(NamedTuple):
    """What a report says of one metric that decides.

    Attributes:
        metric: Task and metric.
        retention: Or the ratio of a perplexity.
        early: Whether it is of a part of the documents.
        limit: What `retention` is held to.
        higher_is_better: Whether the limit is the least that it may be, else the most.
    """

    metric: str
    retention: float
    early: bool
    limit: float | None
    higher_is_better: bool


class Row(NamedTuple):
    """What the dashboard knows of one report: texts without control characters, finite figures.

    Attributes:
        digest: Names the report and its page.
        checkpoint: By what it is known from run to run.
        family: The baseline's model.
        proposed: As in `Seen`.
        date: To the minute in UTC; as the report has it where that is no date.
        moment: The same in seconds since 1970; None where it is no date.
        reason: The sentence that decided.
        cause: What decided, where it is not the first of `measures`: a metric, or a stage.
        obstacle: Why the checkpoint is not releasable, in one or two words; empty if it is.
        measures: Those that decide by points first.
        stored_bytes, bits: On disk, and a weight.
        saving: How many times smaller than the original.
    """

    digest: str
    checkpoint: str
    family: str
    format: str
    branch: str
    proposed: bool
    date: str
    moment: float | None
    outcome: Outcome
    reason: str
    cause: str
    obstacle: str
    measures: tuple[Measure, ...]
    stored_bytes: int | None
    bits: float | None
    saving: float | None

    @property
    def age(self) -> tuple[float, str]:
        """By which rows are sorted, the oldest first."""
        return (-math.inf if self.moment is None else self.moment, self.digest)

    @property
    def standing(self) -> tuple[bool, float, str]:
        """By which one report of a checkpoint is preferred to another.

        What is only proposed counts where there is nothing else: a pull request that fails says
        nothing about what is there without it.
        """
        return (not self.proposed, *self.age)

    def measure(self, metric: str) -> Measure | None:
        """What is known of one metric."""
        return next((found for found in self.measures if found.metric == metric), None)

    @property
    def first(self) -> Measure | None:
        """What is shown where there is room for one."""
        return next(iter(self.measures), None)


def row(seen: Seen) -> Row:
    """The row of one report."""
    report = seen.report
    deciding = _deciding(report.verdict.comparisons)
    moment = _moment(report.date)
    size = report.size
    return Row(
        digest=hashlib.sha256(report.model_dump_json().encode()).hexdigest()[:DIGITS],
        checkpoint=plain(history.shown(report)),
        family=plain(report.baseline.model) if report.baseline else NO_FAMILY,
        format=plain(wording.format_sentence(report.lint)) if report.lint.format else UNQUANTIZED,
        branch=plain(seen.branch),
        proposed=seen.proposed,
        date=f"{moment:%Y-%m-%d %H:%M}" if moment else plain(report.date),
        moment=moment.timestamp() if moment else None,
        outcome=report.verdict.outcome,
        reason=plain(next(iter(report.verdict.reasons), "")),
        cause=_cause(report, deciding[:1]),
        obstacle=_obstacle(report),
        measures=tuple(_measure(comparison) for comparison in deciding),
        stored_bytes=_bytes(size.stored_bytes) if size else None,
        bits=_finite(size.bits_per_weight) if size else None,
        saving=_finite(size.compression) if size else None,
    )


def _deciding(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The metrics that decide by what is retained; those that count points first."""
    found = [
        c
        for c in comparisons
        if c.outcome is not None
        and not c.absolute
        and c.task not in {SPEED, DRIFT}
        and math.isfinite(c.retention)
    ]
    return sorted(found, key=lambda c: c.budget is None)


def _measure(comparison: Comparison) -> Measure:
    return Measure(
        metric=_metric(comparison),
        retention=comparison.retention,
        early=comparison.early_stop is not None,
        limit=_limit(comparison),
        higher_is_better=comparison.higher_is_better,
    )


def _metric(comparison: Comparison) -> str:
    return plain(f"{comparison.task} {comparison.metric}")


def _cause(report: Report, shown: Sequence[Comparison]) -> str:
    """What a figure that is good enough does not explain."""
    verdict = report.verdict
    if verdict.outcome == "pass" or any(c.outcome == verdict.outcome for c in shown):
        return ""
    guilty = next((c for c in verdict.comparisons if c.outcome == verdict.outcome), None)
    if guilty is not None:
        return _metric(guilty)
    before = report.previous.comparisons if report.previous else ()
    dropped = next((c for c in before if c.outcome == verdict.outcome), None)
    return f"{_metric(dropped)} against what passed last" if dropped else verdict.stage


def _limit(comparison: Comparison) -> float | None:
    """The limit on the scale of `retention`."""
    if comparison.threshold is None or comparison.min_score is not None:
        return None
    limit = float(comparison.threshold)
    mirrored = comparison.budget is not None and not comparison.higher_is_better
    return _finite(2 - limit if mirrored else limit)


def _obstacle(report: Report) -> str:
    """What keeps the checkpoint from a release, as `gate attest` sees it."""
    if report.verdict.outcome != "pass":
        return wording.verdict_word(report)
    if report.policy is not None and report.policy.advisory:
        return "advisory"
    if report.evaluation is None:
        return "not measured"
    early = any(c.early_stop and c.outcome is not None for c in report.verdict.comparisons)
    if early and report.settings.get("attest", "full") == "full":
        return "ended early"
    return ""


def _moment(date: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(date)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _bytes(value: int) -> int | None:
    return value if 0 < value < MAX_BYTES else None
