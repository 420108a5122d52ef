"""What a comment tells of one checkpoint: figures, findings, what changed in its answers."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from gate.records import BaselineInfo, Comparison, Finding, GateRun, Report
from gate.reports import answers, diagnosed, evidence, findings, metrics, speed, wording
from gate.reports.markdown import ICONS, drift_table, previous_table, speed_table, suite_table
from gate.reports.markup import advice, code, escape, fence, fold, left_table, table, unbroken
from gate.reports.shorten import Detail
from gate.verdict import POOLED

OPEN_FINDINGS = 5
"""Shown at once; the others are folded."""

MOST_FILES = 3
FINGERPRINT_DIGITS = 12

METRICS = ("metric", "baseline", "candidate", "retained", "limit", "budget used", "95 % interval",
           "verdict")  # fmt: skip


def folded(run: GateRun, report: Report, title: str, detail: Detail) -> Iterator[str]:
    """The same below a line that opens it, with its reason and its fix."""
    lines = [f"**{escape(reason(report))}**"]
    if report.verdict.fix:
        lines.append(f"**Fix:** {advice(report.verdict.fix)}")
    yield from fold(title, chain(lines, blocks(run, report, detail)))


def blocks(run: GateRun, report: Report, detail: Detail) -> Iterator[str]:
    """Paragraphs, tables and folded parts, what decided first."""
    yield from (f"⚠️ {escape(said)}" for said in wording.concerns(report.verdict))
    yield from _change(run, report)
    yield from _figures(report)
    yield from answers.instructions(report)
    yield from diagnosed.blocks(report)
    measured = speed_table(report.evaluation)
    if measured:
        yield from fold(speed.TITLE, measured[1:])
    yield from _findings(report, detail)
    yield from answers.canary(report, detail)
    yield from answers.flips(report, detail)
    yield from _provenance(run, report, detail)


def reason(report: Report) -> str:
    """Why it passed or failed: the first reason; of a metric, what it keeps and what it must."""
    said = next(iter(report.verdict.reasons), "")
    errors = sum(error.count for error in report.lint.errors)
    if report.verdict.stage == "lint" and errors > 1:
        return f"{said}; {wording.count(errors, 'error')} in all"
    if len(report.verdict.canary) > 1:
        return f"{said}; {wording.count(len(report.verdict.canary), 'such answer')} in all"
    for c in report.verdict.comparisons:
        if c.reason != said or c.early_stop is not None or not c.higher_is_better:
            continue
        if c.task == POOLED or c.min_score is not None:
            continue
        if c.budget is not None and budget_used(c):
            net = c.net_loss or 0.0
            moved = f"{'lost' if net > 0 else 'gained'} {wording.points(abs(net))}"
            return (
                f"{c.task} {c.metric} keeps {c.retention:.3f} of the baseline's score; at least "
                f"{c.threshold} is required ({moved} points net, "
                f"{wording.points(c.budget)} may be lost)"
            )
    return said


def borderline(report: Report) -> bool:
    """Whether the verdict hangs on metrics whose interval holds the limit."""
    decided = [c for c in report.verdict.comparisons if c.outcome]
    if report.verdict.outcome == "pass":
        return any(c.borderline for c in decided)
    failed = [c for c in decided if c.outcome == "fail"]
    return bool(failed) and all(c.borderline for c in failed)


def retained(comparison: Comparison) -> str:
    """A cell: what is retained, or the ratio, and the budget that this used."""
    *_, share, _, _, _ = metrics.cells(comparison)
    used = budget_used(comparison)
    mark = f"{ICONS['fail']} " if comparison.outcome == "fail" else ""
    return unbroken(f"{mark}{escape(share)} ({used})" if used else f"{mark}{escape(share)}")


def budget_used(comparison: Comparison) -> str:
    """For example "12 of 20"; of a ratio, how much of the increase that is allowed."""
    c = comparison
    if c.budget is not None and c.net_loss is not None and math.isfinite(c.net_loss):
        return f"{wording.points(max(0.0, c.net_loss))} of {wording.points(c.budget)}"
    grows = c.threshold is not None and c.budget is None and not c.absolute
    room = float(c.threshold or 1) - 1 if grows else 0.0
    if room > 0 and math.isfinite(c.retention):
        return f"{100 * max(0.0, c.retention - 1) / room:.0f} %"
    return ""


def findings_beyond(report: Report, detail: Detail) -> int:
    """How many of a report's findings are not told."""
    shown = len(_shown(report, detail))
    return len([f for f in report.lint.findings if f.ignored is None]) - shown


def _change(run: GateRun, report: Report) -> Iterator[str]:
    """What of this checkpoint the change touches: the first half of "is it me?"."""
    name = wording.name(report)
    for changed in run.detection.present if run.detection else ():
        if changed.path in {name, report.checkpoint}:
            more = len(changed.files) - MOST_FILES
            files = ", ".join(map(code, changed.files[:MOST_FILES]))
            rest = f" and {more:,} more" if more > 0 else ""
            previous = f" from {code(changed.previous)}" if changed.previous else ""
            listed = f": {files}{rest}" if files else ""
            yield f"This change {_DID[changed.change]} it{previous}{listed}."
            return


_DID = {"added": "adds", "modified": "modifies", "renamed": "renames"}


def _figures(report: Report) -> Iterator[str]:
    """Every metric, what chance may have done, and the size."""
    comparisons = report.verdict.comparisons
    yield from suite_table(report.verdict)
    if comparisons:
        yield table(METRICS, [_metric(comparison) for comparison in comparisons])
    yield from previous_table(report)
    yield from drift_table(report.evaluation)
    yield from map(escape, certainty(comparisons))
    yield from map(escape, metrics.marks(comparisons))
    if report.evaluation is None and not comparisons and report.verdict.outcome != "fail":
        yield "Static validation only: its quality was not measured."
    if missing := wording.not_run(report):
        yield f"Not run, since the verdict was settled before: {escape(missing)}."
    if report.size is not None:
        yield f"**Size:** {escape(wording.size_sentence(report.size))}."
    if report.baseline is not None:
        yield f"**Baseline:** {_baseline(report.baseline, report.date)}."


def _metric(comparison: Comparison) -> list[str]:
    name, base, ours, share, interval, limit, outcome = metrics.cells(comparison)
    interval = interval.replace(" - ", " to ")
    used = budget_used(comparison)
    if comparison.budget is not None and (comparison.losses or comparison.gains):
        sides = (comparison.losses or 0.0, comparison.gains or 0.0)
        used += f"<br>({wording.points(sides[0])} lost, {wording.points(sides[1])} gained)"
    cells = [*map(escape, (base, ours, share, limit)), used, escape(interval)]
    if comparison.outcome is None:
        return [escape(name), *map(unbroken, cells), escape(outcome)]
    # The verdict is also seen where a narrow screen cuts the table.
    named = f"{ICONS[comparison.outcome]} {escape(name)}"
    return [named, *map(unbroken, cells), f"**{escape(outcome)}**"]


def certainty(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Whether other documents would have told otherwise: the second half of "is it me?"."""
    failed = (c for c in comparisons if c.outcome == "fail" and c.early_stop is None)
    first = next(failed, None)
    if first is None or first.borderline or first.ci_low is None or first.ci_high is None:
        return
    side = "below" if first.higher_is_better else "above"
    yield (
        "Chance does not explain it: the whole 95 % interval of what is retained, "
        f"{first.ci_low:.3f} to {first.ci_high:.3f}, lies {side} the limit of "
        f"{metrics.limit(first).split()[-1]}."
    )


def _baseline(info: BaselineInfo, now: str) -> str:
    named = f"{info.model}@{info.revision[:FINGERPRINT_DIGITS]}" if info.revision else info.model
    parts = [code(named), wording.age(info.date, now)]
    if info.fingerprint:
        parts.append(f"fingerprint {code(info.fingerprint[:FINGERPRINT_DIGITS])}")
    return ", ".join(filter(None, parts))


def _shown(report: Report, detail: Detail) -> list[Finding]:
    listed = findings.listed(report.lint)
    told = [f for f in listed if detail.notes or f.severity != "note"]
    return told[: detail.findings]


def _findings(report: Report, detail: Detail) -> Iterator[str]:
    shown = _shown(report, detail)
    first = [f for f in shown if f.severity == "error"][:OPEN_FINDINGS]
    others = [f for f in shown if f not in first]
    yield f"**Static validation:** {findings.summary(report.lint)}."
    if first:
        yield _finding_table(report, first)
        yield f"More about a rule: {code(f'gate explain {first[0].rule}')}."
    if others:
        more = " more" if first and others[0].severity == "error" else ""
        yield from fold(f"{findings.found(others)}{more}", iter([_finding_table(report, others)]))


def _finding_table(report: Report, shown: Sequence[Finding]) -> str:
    rows = [
        [
            finding.severity,
            code(finding.rule),
            "<br>".join(
                [
                    escape(finding.message),
                    *map(code, [findings.path(report, finding), *findings.details(finding)]),
                ]
            ),
            advice(finding.fix),
        ]
        for finding in shown
    ]
    return left_table(["severity", "rule", "finding", "fix"], rows)


def _provenance(run: GateRun, report: Report, detail: Detail) -> Iterator[str]:
    """How it was judged, folded, and how to repeat it."""
    told = {"Size", "Not run"} | ({"Policy", "Not used"} if run.policy else set())
    known = [fact for fact in wording.facts(report) if fact[0] not in told]
    facts = [f"- {name}: {escape(said)}" for name, said in [*evidence.facts(report.lint), *known]]
    if detail.notes:
        facts += [
            f"- Ignored: {code(f.rule)}: {escape(f.message)} (because: {escape(f.ignored or '')})"
            for f in findings.ignored(report.lint)[: detail.findings]
        ]
        facts += [f"- Skipped: {escape(said)}" for said in findings.skipped(report.lint)]
    yield from fold("How it was judged", iter(["\n".join(facts)]))
    at = f" at commit {code(run.head_sha[:7])}" if run.head_sha else ""
    yield f"Repeat it{at}:"
    yield fence(report.command)
