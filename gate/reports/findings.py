"""What reports say of static validation, the same in every form, not yet escaped."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from gate.records import Finding, LintResult, Report
from gate.reports.wording import VERDICTS, count, verdict_word

SEVERITIES = ("error", "warning", "note")

MOST = 50
"""Listed of each severity: a checkpoint can have one for each of its 100,000 tensors."""

MOST_NAMES = 3
"""Of rules that were skipped for the same reason."""


def listed(lint: LintResult) -> list[Finding]:
    """What is listed: by severity, errors first, the ignored apart (`ignored`)."""
    return [
        finding
        for severity in SEVERITIES
        for finding in [f for f in lint.findings if f.severity == severity and f.ignored is None][
            :MOST
        ]
    ]


def ignored(lint: LintResult) -> list[Finding]:
    """Findings that the settings ignore."""
    return [f for f in lint.findings if f.ignored is not None][:MOST]


def summary(lint: LintResult) -> str:
    """For example: "1 error, 2 warnings; 1 ignored; 20 rules ran, 3 skipped"."""
    set_aside = sum(finding.count for finding in lint.findings if finding.ignored is not None)
    parts = [found(lint.findings), *([f"{set_aside:,} ignored"] if set_aside else [])]
    left_out = f", {len(lint.skipped)} skipped" if lint.skipped else ""
    return "; ".join([*parts, f"{count(len(lint.rules_run), 'rule')} ran{left_out}"])


def more(lint: LintResult) -> str | None:
    """How many findings are not listed."""
    left = len(lint.findings) - len(listed(lint)) - len(ignored(lint))
    return f"and {left:,} more; the JSON report has them all" if left else None


def path(report: Report, finding: Finding) -> str:
    """The file, as seen from where the command ran; the checkpoint where no file is to blame."""
    return f"{report.checkpoint.rstrip('/')}/{finding.file}" if finding.file else report.checkpoint


def details(finding: Finding) -> list[str]:
    """Where in the file: the tensor unless the message has it, and the JSON pointer."""
    lines = []
    if finding.tensor and finding.tensor not in finding.message:
        lines.append(f"tensor: {finding.tensor}")
    if finding.pointer:
        lines.append(f"at: {finding.pointer}")
    return lines


def grouped(lint: LintResult) -> list[tuple[Finding, ...]]:
    """What is listed, with neighbours of the same rule and fix together."""
    return [
        tuple(group)
        for _, group in groupby(listed(lint), lambda item: (item.severity, item.rule, item.fix))
    ]


def skipped(lint: LintResult) -> list[str]:
    """One sentence for each reason why rules were skipped."""
    by_reason: dict[str, list[str]] = {}
    for item in lint.skipped:
        by_reason.setdefault(item.reason, []).append(item.rule)
    sentences = []
    for reason, rules in by_reason.items():
        more = f" and {len(rules) - MOST_NAMES} more" if len(rules) > MOST_NAMES else ""
        sentences.append(f"{reason}: {', '.join(rules[:MOST_NAMES])}{more}")
    return sentences


def totals(reports: Sequence[Report]) -> str:
    """For example: "3 checkpoints: 2 PASS, 1 FAIL; 2 errors, 1 warning"."""
    words = Counter(verdict_word(report) for report in reports)
    verdicts = ", ".join(f"{words[word]} {word}" for word in VERDICTS.values() if words[word])
    every = [finding for report in reports for finding in report.lint.findings]
    return f"{count(len(reports), 'checkpoint')}: {verdicts}; {found(every)}"


def found(findings: Sequence[Finding]) -> str:
    """For example: "1 error, 2 warnings"."""
    counts: Counter[str] = Counter()
    for finding in findings:
        if finding.ignored is None:
            counts[finding.severity] += finding.count
    parts = [count(counts[severity], severity) for severity in SEVERITIES if counts[severity]]
    return ", ".join(parts) or "no findings"
