"""A diagnosis on a terminal and as Markdown: by itself, and as a part of a verdict's report."""

from collections.abc import Callable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from gate.records import Diagnosis, DiagnosisReport, LintResult, Report
from gate.reports import depth, diagnosis, recipe
from gate.reports.console import facts_grid, rendered, table_of
from gate.reports.json import inert
from gate.reports.markup import code, escape, fence, fold, named_table
from gate.reports.wording import count, plain


def text(report: DiagnosisReport, *, color: bool = False, width: int = 100) -> str:
    """Where it hurts, why, what to do; then the figures, the growth and the recipe.

    Args:
        report: What was found.
        color: Whether to write terminal colours.
        width: Columns of the terminal.
    """
    found = report.diagnosis
    parts = [*_errors(report), *_sentences(found)]
    for _, header, rows in diagnosis.tables(found):
        parts += _table(header, rows)
    if found.modules:
        parts += [Text(diagnosis.NOTE, style="dim"), Text()]
    if found.layers:
        parts += [Text(depth.TITLE, style="bold"), Text(depth.sentence(found.layers))]
        parts += [Text(line, no_wrap=True) for line in depth.chart(found.layers)]
    exclusion = diagnosis.proposed(found)
    ways = recipe.ways(exclusion, report.lint) if exclusion else []
    if exclusion is not None:
        effect = Text(diagnosis.effect(exclusion, found))
        parts += [Text(), Text(recipe.TITLE, style="bold"), effect]
    # Lines that are copied are not wrapped.
    told = [rendered(Group(*parts), color, width)]
    told += [f"{how}\n{plain(lines, lines=True, limit=recipe.MOST_CHARS)}\n" for how, lines in ways]
    return "\n".join([*told, rendered(facts_grid(_facts(report)), color, width)])


def markdown(report: DiagnosisReport) -> str:
    """The same as GitHub Markdown."""
    found = report.diagnosis
    first, second, third = diagnosis.sentences(found)
    blocks = [f"## {escape(first)}", escape(second), f"**Fix:** {escape(third)}"]
    blocks = [*(f"⚠️ {escape(said)}" for said in _lint_errors(report)), *blocks]
    blocks += [named_table(header, rows) for _, header, rows in diagnosis.tables(found)]
    blocks += [escape(diagnosis.NOTE)] if found.modules else []
    if found.layers:
        blocks += [f"**{depth.TITLE}**", escape(depth.sentence(found.layers))]
        blocks.append(fence("\n".join(depth.chart(found.layers))))
    blocks += _recipe(found, report.lint)
    facts = [f"- {name}: {escape(said)}" for name, said in _facts(report)[:-1]]
    blocks.append("\n".join([*facts, f"- Repeat: {code(report.command)}"]))
    return "\n\n".join(blocks) + "\n"


def json(report: DiagnosisReport) -> str:
    """All of it, so that it can be read back."""
    return inert(report.model_dump_json(indent=1)) + "\n"


FORMATS: dict[str, Callable[[DiagnosisReport], str]] = {"json": json, "markdown": markdown}


def parts(report: Report) -> list[RenderableType]:
    """Where a failed candidate hurts, for the report of its verdict on a terminal."""
    found = report.diagnosis
    if found is None:
        return []
    shown = _table(diagnosis.MODULES, diagnosis.module_rows(found, diagnosis.WORST))
    return [Text(), Text(diagnosis.TITLE, style="bold"), *_sentences(found), *shown]


def blocks(report: Report) -> Iterator[str]:
    """Where a failed candidate hurts, the recipe folded; nothing where it was not diagnosed."""
    found = report.diagnosis
    if found is None:
        return
    first, second, third = diagnosis.sentences(found)
    yield f"**{diagnosis.TITLE}:** {escape(first)}. {escape(second)}."
    yield f"**What helps:** {escape(third)}."
    rows = diagnosis.module_rows(found, diagnosis.WORST)
    if rows:
        yield named_table(diagnosis.MODULES, rows)
    if diagnosis.proposed(found) is not None:
        yield from fold(recipe.TITLE, _recipe(found, report.lint))


def _recipe(found: Diagnosis, lint: LintResult) -> Iterator[str]:
    """The set to leave unquantized, and how."""
    exclusion = diagnosis.proposed(found)
    if exclusion is None:
        return
    yield escape(diagnosis.effect(exclusion, found))
    for how, lines in recipe.ways(exclusion, lint):
        yield escape(how)
        yield fence(lines, recipe.MOST_CHARS)


def _lint_errors(report: DiagnosisReport) -> list[str]:
    """What static validation found, since that comes before any measurement."""
    errors = report.lint.errors
    if not errors:
        return []
    said = f"Static validation found {count(len(errors), 'error')}, which may be the cause"
    return [f"{said}: {errors[0].message}. {errors[0].fix}"]


def _facts(report: DiagnosisReport) -> list[tuple[str, str]]:
    name = f"{report.checkpoint}@{report.revision}" if report.revision else report.checkpoint
    made = ("Took", f"quant-gate {report.gate_version}, {report.date}")
    facts = [("Checkpoint", name), *diagnosis.facts(report.diagnosis), made]
    return [*facts, ("Repeat", report.command)]


def _errors(report: DiagnosisReport) -> list[RenderableType]:
    return [Text(plain(said), style="yellow") for said in _lint_errors(report)]


def _sentences(found: Diagnosis) -> list[RenderableType]:
    first, second, third = map(plain, diagnosis.sentences(found))
    return [Text(first, style="bold"), Text(second), Text(f"Fix: {third}")]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[RenderableType]:
    shown = table_of(header)
    for row in rows:
        shown.add_row(*(Text(plain(cell)) for cell in row))
    return [shown] if rows else []
