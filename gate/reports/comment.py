"""The comment on a pull request: what broke, whether it was this change, what to do.

The first line is the verdict on all checkpoints together, the second says why, the third what to
do. Everything that is not our own words is written through `markdown`'s escapes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gate.records import Detection, GateRun, Report
from gate.reports import answers, section, wording
from gate.reports.markdown import ICONS
from gate.reports.markup import advice, code, escape, left_table, link, unbroken
from gate.reports.shorten import FULL, Detail, fitted

LIMIT = 60_000
"""GitHub takes 65,536 characters; the rest is left for the marker, and for doubt."""

RANK = {"fail": 0, "error": 1, "inconclusive": 2, "pass": 3}
MOST_METRICS = 3
MOST_FILES = 5
MAX_NAME_CHARS = 120
MAX_REASON_CHARS = 200


class Entry(NamedTuple):
    """One checkpoint of a run: its report, or why there is none."""

    name: str
    status: str
    report: Report | None
    reason: str
    fix: str | None


def render(run: GateRun, *, limit: int = LIMIT, history: str = "") -> str:
    """The comment without its marker, as Markdown.

    Args:
        run: What was judged.
        limit: Most bytes of UTF-8, and so most UTF-16 units, of the result.
        history: Markdown that goes below, left out where it leaves no room for the rest.
    """
    below = f"\n{history.strip()}\n" if history.strip() else ""
    taken = len(below.encode())
    if taken > limit // 2:
        below, taken = "", 0
    return fitted(lambda detail: _blocks(run, detail), limit - taken) + below


def _blocks(run: GateRun, detail: Detail) -> Iterator[str]:
    entries = _entries(run)
    yield _heading(run, entries)
    yield from _reason_and_fix(run, entries)
    yield from _notices(run)
    if len(entries) > 1:
        yield from _overview(entries, detail)
        for entry in entries[: detail.sections]:
            if entry.report is not None:
                yield from section.folded(run, entry.report, _title(entry), detail)
    elif entries and entries[0].report is not None and detail.sections:
        yield from section.blocks(run, entries[0].report, detail)
    left = _left_out(entries, detail)
    if left:
        where = link("the run's summary and report", run.run_url)
        yield f"Left out to keep this short: {', '.join(left)}. See {where}."
    yield _footer(run)


def _entries(run: GateRun) -> list[Entry]:
    """Every checkpoint, the worst first."""
    judged = [
        Entry(
            wording.name(report),
            report.verdict.outcome,
            report,
            section.reason(report),
            report.verdict.fix,
        )
        for report in run.reports
    ]
    failed = [Entry(f.checkpoint, "error", None, f.message, f.hint) for f in run.failures]
    return sorted([*judged, *failed], key=lambda entry: (RANK[entry.status], entry.name))


def _heading(run: GateRun, entries: Sequence[Entry]) -> str:
    if not entries:
        return f"## {ICONS['skipped']} quant-gate: SKIPPED, nothing to judge"
    worst = entries[0].status
    alike = [entry for entry in entries if entry.status == worst]
    whose = code(entries[0].name, MAX_NAME_CHARS)
    if len(entries) > 1:
        whose = f"{len(alike)} of {wording.count(len(entries), 'checkpoint')}"
        whose = wording.count(len(entries), "checkpoint") if worst == "pass" else whose
    word, icon = worst.upper(), ICONS[worst]
    if worst == "error":
        whose = f"no verdict on {whose}"
    elif _close(entries):
        word += " (borderline)"
    if run.policy is not None and run.policy.advisory:
        word, icon = f"{word}, advisory", "ℹ️"
    elif run.waiver is not None and worst == "fail":
        word, icon = f"{word}, waived", "⚠️"
    return f"## {icon} quant-gate: {word}, {whose}"


def _close(entries: Sequence[Entry]) -> bool:
    """Whether the overall verdict hangs on a metric whose interval holds the limit."""
    worst = [entry.report for entry in entries if entry.status == entries[0].status]
    close = [report is not None and section.borderline(report) for report in worst]
    return any(close) if entries[0].status == "pass" else all(close)


def _reason_and_fix(run: GateRun, entries: Sequence[Entry]) -> Iterator[str]:
    if not entries:
        yield f"**{_looked_at(run.detection)}**"
        return
    first = entries[0]
    named = f"{code(first.name, MAX_NAME_CHARS)}: " if len(entries) > 1 else ""
    if first.status == "pass" and len(entries) > 1:
        yield "**No error was found, and every limit was kept.**"
    elif first.reason:
        yield f"{named}**{escape(first.reason)}**"
    if first.fix:
        yield f"**Fix:** {advice(first.fix)}"
    if first.status == "error":
        yield "This is not a verdict on the checkpoint: the gate itself could not finish."


def _looked_at(detection: Detection | None) -> str:
    """What a skipped run compared."""
    if detection is None:
        return "Nothing was judged."
    if detection.base is None or detection.head is None:
        return f"No checkpoint was found (read through {escape(detection.source)})."
    base, head = code(detection.base[:7]), code(detection.head[:7])
    return f"No checkpoint changed from {base} to {head} (read through {escape(detection.source)})."


def _notices(run: GateRun) -> Iterator[str]:
    """What else decides, or would have decided, this verdict."""
    if run.waiver is not None:
        waiver = run.waiver
        yield (
            f"**Waived** by {code(waiver.by)} with the label {code(waiver.label)}, "
            f"until {escape(wording.moment(waiver.expires))}. It does not block, and it is not a "
            "pass."
        )
    policy, detection = run.policy, run.detection
    if policy is not None and policy.advisory:
        yield (
            "**Advisory:** the base branch has no settings yet, so this change's own were used "
            "and nothing is blocked. Once they are merged, they decide."
        )
    elif policy is not None and policy.changed and not (run.reports or run.failures):
        names = _names(policy.changed)
        yield f"This change edits the gate's own files ({names}); they count once it is merged."
    elif policy is not None and policy.changed:
        whose = f" {code(policy.commit[:7])}" if policy.commit else ""
        yield (
            f"**Not used:** this change edits {_names(policy.changed)}. Settings, baselines and "
            f"tasks of the base commit{whose} decided; the edit counts once it is merged."
        )
    if policy is not None and policy.references:
        pins = [
            f"- {code(pin.path)}: {code(pin.base or '') or 'none'} → {code(pin.head or '')}"
            for pin in policy.references[:MOST_FILES]
        ]
        yield "This change pins another reference; the limits are still the base's:"
        yield "\n".join(pins)
    removed = [c.path for c in detection.checkpoints if c.change == "removed"] if detection else []
    if removed:
        yield f"Removed by this change, so not judged: {_names(removed)}."


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_FILES
    shown = ", ".join(code(name, MAX_NAME_CHARS) for name in names[:MOST_FILES])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _overview(entries: Sequence[Entry], detail: Detail) -> Iterator[str]:
    """One row a checkpoint."""
    reports = [entry.report for entry in entries if entry.report is not None]
    keys = list(
        dict.fromkeys(
            (c.task, c.metric) for r in reports for c in r.verdict.comparisons if c.outcome
        )
    )[:MOST_METRICS]
    metrics = [escape(f"{task} {metric}", MAX_NAME_CHARS) for task, metric in keys]
    header = ["checkpoint", "verdict", "size", "compression", *metrics]
    shown = entries[: detail.rows]
    if shown:
        yield left_table(header, [_row(entry, keys) for entry in shown])
    others = [entry for entry in shown if entry.status != "pass" and not _seen(entry, keys)]
    if others:
        yield "\n".join(
            f"- {code(entry.name, MAX_NAME_CHARS)}: {escape(entry.reason, MAX_REASON_CHARS)}"
            for entry in others
        )


def _row(entry: Entry, keys: Sequence[tuple[str, str]]) -> list[str]:
    report = entry.report
    size = report.size if report else None
    compared = {(c.task, c.metric): c for c in report.verdict.comparisons} if report else {}
    smaller = size.compression if size else None
    verdict = unbroken(f"{ICONS[entry.status]} {entry.status.upper()}")
    return [
        code(entry.name, MAX_NAME_CHARS),
        f"{verdict} (borderline)" if _close([entry]) else verdict,
        unbroken(wording.stored(size.stored_bytes)) if size else "",
        f"{smaller:.2f}×" if smaller else "",
        *(section.retained(compared[key]) if key in compared else "" for key in keys),
    ]


def _seen(entry: Entry, keys: Sequence[tuple[str, str]]) -> bool:
    """Whether the table shows the metric that failed."""
    compared = entry.report.verdict.comparisons if entry.report else ()
    return any(c.outcome == "fail" and (c.task, c.metric) in keys for c in compared)


def _title(entry: Entry) -> str:
    return f"{ICONS[entry.status]} {entry.status.upper()}: {entry.name}"


def _left_out(entries: Sequence[Entry], detail: Detail) -> list[str]:
    """What a shorter stage than the first does not tell, in words."""
    reports = [entry.report for entry in entries if entry.report is not None]
    told = [entry.report for entry in entries[: detail.sections] if entry.report is not None]
    left = []
    texts = sum(answers.documents(report) for report in told)
    if texts and not detail.answer_chars:
        left.append(f"the answers to {wording.count(texts, 'document')}")
    if told and detail.notes != FULL.notes:
        left.append("notes, and what was ignored or skipped")
    findings = sum(section.findings_beyond(report, detail) for report in told)
    if findings:
        left.append(wording.count(findings, "finding"))
    if len(told) < len(reports):
        left.append(f"the details of {wording.count(len(reports) - len(told), 'checkpoint')}")
    if len(entries) > 1 and detail.rows < len(entries):
        left.append(f"{wording.count(len(entries) - detail.rows, 'row')} of the table")
    return left


def _footer(run: GateRun) -> str:
    """Where all of this comes from."""
    parts = [f"quant-gate {escape(run.gate_version)}"]
    if run.head_sha:
        parts.append(f"commit {code(run.head_sha[:7])}")
    if run.policy is not None and run.policy.commit and not run.policy.advisory:
        parts.append(f"settings and baselines from base commit {code(run.policy.commit[:7])}")
    if run.run_id is not None:
        again = f", attempt {run.run_attempt}" if run.run_attempt > 1 else ""
        parts.append(link(f"run {run.run_id}{again}", run.run_url))
    return f"<sub>{' · '.join(parts)}</sub>"
