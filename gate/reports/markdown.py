"""The report as GitHub Markdown: a comment on a pull request, a job summary."""

from collections.abc import Sequence

from gate.records import (
    CanaryAnswer,
    Comparison,
    EvalResult,
    Finding,
    Report,
    Verdict,
)
from gate.reports import (
    diagnosed,
    drifts,
    evidence,
    findings,
    metrics,
    previous,
    speed,
    wording,
)
from gate.reports.markup import code, escape, left_table, named_table, preformatted, table

MOST_REASONS = 50
ICONS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️", "skipped": "➖", "error": "⛔"}


def render(*reports: Report) -> str:
    """Each report: verdict, reason, what to do, then the figures; of several, totals at the end."""
    blocks = [block for report in reports for block in _report(report)]
    if len(reports) > 1:
        blocks.append(f"**{escape(findings.totals(reports))}**")
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _report(report: Report) -> list[str]:
    verdict = report.verdict
    heading = f"{ICONS[verdict.outcome]} {wording.verdict_word(report)}"
    blocks = [f"## {heading}: {code(wording.name(report))}"]
    blocks += [f"**{escape(reason)}**" for reason in verdict.reasons[:1]]
    if verdict.fix:
        blocks.append(f"Fix: {escape(verdict.fix)}")
    blocks += [f"⚠️ {escape(said)}" for said in wording.concerns(verdict)]
    # The reasons of lint are its findings.
    others = verdict.reasons[1:MOST_REASONS] if verdict.stage != "lint" else ()
    if others:
        blocks.append("\n".join(f"- {escape(reason)}" for reason in others))
    blocks += suite_table(verdict)
    if verdict.comparisons:
        blocks += _metrics(verdict.comparisons)
    blocks += previous_table(report)
    blocks += drift_table(report.evaluation)
    blocks += speed_table(report.evaluation)
    blocks += diagnosed.blocks(report)
    blocks += _canary(verdict.canary)
    blocks += _lint(report)
    known = [*evidence.facts(report.lint), *wording.facts(report)]
    facts = [f"- {name}: {escape(sentence)}" for name, sentence in known]
    return [*blocks, "\n".join([*facts, f"- Repeat: {code(report.command)}"])]


def variants(
    baseline: EvalResult, rows: Sequence[tuple[str, EvalResult, tuple[Comparison, ...]]]
) -> str:
    """One row a variant: size, bits per weight, compression, perplexity, every metric.

    Args:
        rows: Name, result and comparisons of each variant.
    """
    return named_table(*metrics.variants(baseline, rows)) + "\n"


def _metrics(comparisons: Sequence[Comparison]) -> list[str]:
    rows = []
    for comparison in comparisons:
        name, *cells, outcome = metrics.cells(comparison)
        shown = escape(outcome)
        rows.append(
            [
                code(name),
                *map(escape, cells),
                shown if comparison.outcome is None else f"**{shown}**",
            ]
        )
    blocks = [table(metrics.COLUMNS, rows)]
    sentences = metrics.budget_sentences(comparisons)
    if sentences:
        blocks.append("\n".join(f"- Error budget, {escape(sentence)}" for sentence in sentences))
    return [*blocks, *map(escape, metrics.marks(comparisons))]


def suite_table(verdict: Verdict) -> list[str]:
    """What each suite says, where the settings have suites."""
    rows = [
        [code(name), *map(escape, cells), f"**{escape(outcome)}**" if outcome else "", escape(note)]
        for name, *cells, outcome, note in metrics.suites(verdict)
    ]
    return [left_table(metrics.SUITE_COLUMNS, rows)] if rows else []


def previous_table(report: Report) -> list[str]:
    """What has become of the figures of what passed last; nothing where that is not known."""
    rows = previous.rows(report)
    return [f"**{previous.TITLE}**", named_table(previous.COLUMNS, rows)] if rows else []


def drift_table(result: EvalResult | None) -> list[str]:
    """How far distributions have moved; nothing where that is not known."""
    rows = drifts.rows(result)
    if result is None or not rows:
        return []
    notes = map(escape, drifts.notes(result))
    return [f"**{drifts.TITLE}**", named_table(drifts.COLUMNS, rows), *notes]


def speed_table(result: EvalResult | None) -> list[str]:
    """Speed and memory; nothing where they were not measured."""
    rows = [list(map(escape, row)) for row in speed.rows(result)]
    if not rows:
        return []
    return [
        f"**{speed.TITLE}**",
        table(speed.COLUMNS, rows),
        *map(escape, speed.notes(result)),
    ]


def _canary(answers: Sequence[CanaryAnswer]) -> list[str]:
    """Both answers to each prompt, side by side; raw HTML, since a pipe table has no lines."""
    blocks = []
    for answer in answers[: wording.MAX_CANARY]:
        title = f"{answer.task} document {answer.doc_id}: {answer.defect}"
        blocks.append(f"### {escape(title)}")
        if answer.prompt is not None:
            blocks.append(f"Prompt: {escape(answer.prompt)}")
        if answer.baseline is None or answer.candidate is None:
            continue
        sides = "".join(
            f"<td valign=top><pre>{preformatted(side, wording.MAX_ANSWER_CHARS)}</pre></td>"
            for side in (answer.baseline, answer.candidate)
        )
        header = "<tr><th>baseline</th><th>candidate</th></tr>"
        blocks.append(f"<table>{header}<tr>{sides}</tr></table>")
    left = len(answers) - wording.MAX_CANARY
    return [*blocks, f"and {wording.count(left, 'more prompt')}"] if left > 0 else blocks


def _lint(report: Report) -> list[str]:
    lint = report.lint
    blocks = [f"### Lint: {findings.summary(lint)}"]
    rows = [_finding(report, finding) for finding in findings.listed(lint)]
    if rows:
        blocks.append(left_table(["severity", "rule", "finding", "fix"], rows))
    more = findings.more(lint)
    if more:
        blocks.append(more)
    layers = evidence.layer_rows(lint)
    if layers:
        blocks.append(named_table(evidence.LAYER_COLUMNS, layers))
    aside = [
        f"- ignored {code(f.rule)}: {escape(f.message)} (because: {escape(f.ignored or '')})"
        for f in findings.ignored(lint)
    ]
    aside += [f"- skipped, {escape(sentence)}" for sentence in findings.skipped(lint)]
    if aside:
        blocks.append(
            "<details><summary>What was ignored or skipped</summary>\n\n"
            + "\n".join(aside)
            + "\n\n</details>"
        )
    return blocks


def _finding(report: Report, finding: Finding) -> list[str]:
    places = [findings.path(report, finding), *findings.details(finding)]
    return [
        finding.severity,
        code(finding.rule),
        f"{escape(finding.message)}<br>{'<br>'.join(map(code, places))}",
        escape(finding.fix),
    ]
