"""Findings as workflow commands, which GitHub shows as annotations.

Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gate.records import Failure, Finding, GateRun, Report
from gate.reports import findings, wording
from gate.reports.wording import plain

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}

MOST = 10
"""Annotations of each kind that GitHub shows for a step; it drops the others silently."""


class Annotation(NamedTuple):
    """What one command says; `findings` is how many it stands for."""

    file: str
    title: str
    message: str
    findings: int = 1


def render(*reports: Report) -> str:
    """One command a line: of each severity the first findings, and one for all that are left."""
    return _lines(reports, {})


def render_run(run: GateRun, warnings: Sequence[str] = ()) -> str:
    """The same of a whole run: checkpoints without a verdict come first.

    Args:
        warnings: What else is to be said, before the findings.
    """
    first = {
        "error": [_failure(failure) for failure in run.failures],
        "warning": [Annotation("", "quant-gate", warning) for warning in warnings],
    }
    return _lines(run.reports, first)


def _failure(failure: Failure) -> Annotation:
    message = f"{plain(failure.message)}\nFix: {plain(failure.hint)}"
    return Annotation("", f"No verdict: {failure.checkpoint}", message)


def _lines(reports: Sequence[Report], first: Mapping[str, Sequence[Annotation]]) -> str:
    lines: list[str] = []
    for severity, command in COMMANDS.items():
        found = [*first.get(severity, ())]
        found += [each for report in reports for each in _annotations(report, severity)]
        shown = found if len(found) <= MOST else found[: MOST - 1]
        lines += [_command(command, each) for each in shown]
        if len(found) > len(shown):
            lines.append(_command(command, _rest(found[len(shown) :])))
    return "".join(f"{line}\n" for line in lines)


def _annotations(report: Report, severity: str) -> Iterator[Annotation]:
    """What a report has to say with one severity; a verdict that no rule explains comes first."""
    if severity == "error" and report.verdict.outcome == "fail" and report.verdict.stage != "lint":
        reasons = (*report.verdict.reasons[:1], *filter(None, [report.verdict.fix]))
        title = f"{wording.verdict_word(report)}: {wording.name(report)}"
        yield Annotation("", title, "\n".join(map(plain, reasons)))
    if severity == "warning":
        for concern in report.verdict.concerns:
            lines = (concern.message, f"Fix: {concern.fix}")
            yield Annotation("", concern.kind, "\n".join(map(plain, lines)))
    for found in findings.listed(report.lint):
        if found.severity == severity:
            path = findings.path(report, found)
            yield Annotation(path, found.rule, _message(found), found.count)


def _message(finding: Finding) -> str:
    """What was found, the tensor, the fix: a line each."""
    lines = [finding.message, *findings.details(finding), f"Fix: {finding.fix}"]
    return "\n".join(map(plain, lines))


def _rest(left: Sequence[Annotation]) -> Annotation:
    rules = plain(", ".join(dict.fromkeys(each.title for each in left)))
    number = wording.count(sum(each.findings for each in left), "more finding")
    return Annotation("", "quant-gate", f"{number} of this severity: {rules}")


def _command(command: str, shown: Annotation) -> str:
    file = f"file={_property(shown.file)}," if shown.file else ""
    return f"::{command} {file}title={_property(shown.title)}::{_data(shown.message)}"


def _data(text: str) -> str:
    """Text that may hold line ends, for after the second pair of colons."""
    return (
        plain(text, lines=True, limit=4000)
        .replace("%", "%25")
        .replace("\r", "%0D")
        .replace("\n", "%0A")
    )


def _property(text: str) -> str:
    """Text on one line, for a property."""
    return _data(plain(text)).replace(":", "%3A").replace(",", "%2C")
