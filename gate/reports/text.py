"""The report on a terminal."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gate.records import CanaryAnswer, Comparison, EvalResult, Finding, Report, Verdict
from gate.reports import (
    counts,
    diagnosed,
    drifts,
    evidence,
    findings,
    metrics,
    previous,
    repeats,
    speed,
    wording,
)
from gate.reports.console import facts_grid, headed_table, rendered, styled, table_of, titled
from gate.reports.wording import plain

VERDICT_STYLE = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
MOST_REASONS = 50
LONGEST_NAME = 32
"""Columns of a metric's name that are kept together."""
SEVERITY_STYLE = {"error": "red", "warning": "yellow", "note": "cyan"}


def render(*reports: Report, color: bool = False, width: int = 100) -> str:
    """Each report: verdict, reason, what to do, then the figures; of several, totals at the end.

    Args:
        reports: Of one run.
        color: Whether to write terminal colours.
        width: Columns of the terminal.
    """
    parts: list[RenderableType] = []
    for report in reports:
        parts += [*([Text()] if parts else []), *_report(report)]
    if len(reports) > 1:
        parts += [Text(), Text(findings.totals(reports), style="bold")]
    return rendered(Group(*parts), color, width) if parts else ""


def _report(report: Report) -> list[RenderableType]:
    verdict = report.verdict
    head = Text(wording.verdict_word(report), style=VERDICT_STYLE[verdict.outcome])
    head.append(f"  {plain(wording.name(report))}", style="bold")
    parts: list[RenderableType] = [head]
    parts += [Text(plain(reason)) for reason in verdict.reasons[:1]]
    if verdict.fix:
        parts.append(Text(f"Fix: {plain(verdict.fix)}"))
    parts += [Text(f"Warning: {plain(said)}") for said in wording.concerns(verdict)]
    if verdict.stage != "lint":  # those of lint are its findings
        parts += [Text(f"Also: {plain(reason)}") for reason in verdict.reasons[1:MOST_REASONS]]
    parts += _suites(verdict)
    if verdict.comparisons:
        parts.append(_metrics(verdict.comparisons))
        parts += _budgets(verdict.comparisons)
    parts += titled(previous.TITLE, previous.COLUMNS, previous.rows(report), ())
    parts += _drifts(report.evaluation)
    parts += _speed(report.evaluation)
    parts += diagnosed.parts(report)
    parts += _canary(verdict.canary)
    parts += [*_lint(report), *_layers(report)]
    facts = [("Lint", findings.summary(report.lint)), *evidence.facts(report.lint)]
    parts += [Text(), facts_grid([*facts, *wording.facts(report), ("Repeat", report.command)])]
    return parts


def result(stored: EvalResult, path: Path, *, color: bool = False, width: int = 100) -> str:
    """What was measured and where it was stored: no verdict, since nothing was compared."""
    head = Text.assemble(
        ("Measured", "bold"), f"  {plain(stored.model)}; stored in {plain(str(path))}"
    )
    table = table_of(("metric", "value", "standard error", "documents"))
    for task in stored.tasks:
        name = plain(f"{task.task} · {task.metric}")
        table.add_row(name, f"{task.value:.4f}", f"{task.stderr:.4f}", str(len(task.samples)))
    for found in stored.perplexities:
        windows = wording.count(len(found.window_nll), "window")
        table.add_row(plain(f"perplexity · {found.name}"), f"{found.value:.2f}", "", windows)
    facts = [
        ("Size", wording.size_sentence(stored.size)),
        *(("Answers", f"{s.task}: {counts.sentence(s, None)}") for s in stored.answer_stats),
        ("Run", wording.run_sentence(stored)),
    ]
    facts += repeats.facts(stored)
    facts += [*drifts.facts(stored), *drifts.stored(stored)]
    facts.append(("Took", wording.duration(stored.duration_s)))
    return rendered(Group(head, table, *_speed(stored), facts_grid(facts)), color, width)


def variants(
    baseline: EvalResult,
    rows: Sequence[tuple[str, EvalResult, tuple[Comparison, ...]]],
    *,
    color: bool = False,
    width: int = 100,
) -> str:
    """One row a variant: size, bits per weight, compression, perplexity, every metric.

    Args:
        rows: Name, result and comparisons of each variant.
    """
    header, cells = metrics.variants(baseline, rows)
    table = headed_table()
    for index, name in enumerate(header):
        # Metrics have long names: one part a line keeps a column as narrow as its figures.
        parts = re.sub(r"([_/])| ", r"\1\n", plain(name))
        first = index == 0
        justify: Literal["left", "right"] = "left" if first else "right"
        table.add_column(Text(parts), justify=justify, no_wrap=not first, overflow="fold")
    for row in cells:
        table.add_row(*(_styled_lines(cell) for cell in row))
    return rendered(table, color, width)


def _styled_lines(cell: str) -> Text:
    """What is retained goes below the figure itself."""
    value, _, retained = plain(cell).partition(" (")
    return styled(value) if not retained else Text(f"{value}\n({retained}")


def _metrics(comparisons: Sequence[Comparison]) -> Table:
    table = table_of(metrics.COLUMNS)
    for comparison in comparisons:
        name, *cells = metrics.cells(comparison)
        cells[-1] = cells[-1].replace(" · ", "\n")
        table.add_row(Text(plain(name)), *(styled(cell) for cell in cells))
    words = [len(word) for comparison in comparisons for word in comparison.metric.split()]
    # A metric's name is cut nowhere before another cell is wrapped.
    table.columns[0].min_width = min(max(words, default=0), LONGEST_NAME)
    return table


def _suites(verdict: Verdict) -> list[RenderableType]:
    """What each suite says, where the settings have suites."""
    rows = metrics.suites(verdict)
    table = headed_table()
    for name in metrics.SUITE_COLUMNS:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(styled(cell) for cell in row))
    return [table] if rows else []


def _budgets(comparisons: Sequence[Comparison]) -> list[RenderableType]:
    sentences = metrics.budget_sentences(comparisons)
    parts: list[RenderableType] = []
    if sentences:
        parts.append(Text("Error budget", style="bold"))
        parts += [Padding(Text(plain(sentence)), (0, 0, 0, 2)) for sentence in sentences]
    parts += [Text(plain(sentence)) for sentence in metrics.marks(comparisons)]
    return parts


def _drifts(result: EvalResult | None) -> list[RenderableType]:
    """How far distributions have moved; figures alone mean little."""
    notes = drifts.notes(result) if result is not None else ()
    return titled(drifts.TITLE, drifts.COLUMNS, drifts.rows(result), notes)


def _speed(result: EvalResult | None) -> list[RenderableType]:
    """Speed and memory, with an empty line below."""
    parts = titled(speed.TITLE, speed.COLUMNS, speed.rows(result), speed.notes(result))
    return [*parts, Text()] if parts else []


def _canary(answers: Sequence[CanaryAnswer]) -> list[RenderableType]:
    """Both answers to each prompt, side by side."""
    parts: list[RenderableType] = []
    for answer in answers[: wording.MAX_CANARY]:
        title = f"{answer.task} document {answer.doc_id}: {answer.defect}"
        parts += [Text(), Text(plain(title), style="bold")]
        if answer.prompt is not None:
            parts.append(Text(f"Prompt: {plain(answer.prompt)}"))
        if answer.baseline is None or answer.candidate is None:
            continue
        table = headed_table()
        table.add_column("baseline", ratio=1, overflow="fold")
        table.add_column("candidate", ratio=1, overflow="fold")
        table.add_row(
            *(
                Text(plain(side, lines=True, limit=wording.MAX_ANSWER_CHARS) or "(empty)")
                for side in (answer.baseline, answer.candidate)
            )
        )
        parts.append(table)
    left = len(answers) - wording.MAX_CANARY
    if left > 0:
        parts.append(Text(f"and {wording.count(left, 'more prompt')}"))
    return parts


def _lint(report: Report) -> list[RenderableType]:
    """Findings as linters print them, the fix once below those that share it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for group in findings.grouped(report.lint):
        severity = group[0].severity
        for finding in group:
            grid.add_row(Text(severity, SEVERITY_STYLE[severity]), _finding(report, finding))
        grid.add_row("", Text(f"fix: {plain(group[0].fix)}"))
    more = findings.more(report.lint)
    if more:
        grid.add_row("", more)
    for finding in findings.ignored(report.lint):
        why = Text(f"because: {plain(finding.ignored or '')}")
        grid.add_row("ignored", Text("\n").join([_finding(report, finding), why]))
    for sentence in findings.skipped(report.lint):
        grid.add_row("skipped", Text(plain(sentence)))
    return [Text(), grid] if grid.row_count else []


def _layers(report: Report) -> list[RenderableType]:
    """The layers that are farthest from the reference."""
    rows = evidence.layer_rows(report.lint)
    table = table_of(evidence.LAYER_COLUMNS)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return [table] if rows else []


def _finding(report: Report, finding: Finding) -> Text:
    """File, rule and message; where in the file."""
    line = Text.assemble(
        plain(findings.path(report, finding)),
        ": ",
        (plain(finding.rule), "bold"),
        f": {plain(finding.message)}",
    )
    for detail in findings.details(finding):
        line.append(f"\n{plain(detail)}", style="dim")
    return line
