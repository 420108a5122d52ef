"""The report as GitHub Markdown: a comment on a pull request, a job summary.

Names, messages and answers come from checkpoints and models, and anyone may send those. None of
it may become a table row, a link, a mention, a tag or a code block: it is written through
`escape`, `code` or `_answer`.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from gate.records import CanaryAnswer, Comparison, EvalResult, Finding, Report, Verdict
from gate.reports import drifts, evidence, findings, metrics, speed, wording
from gate.reports.wording import plain

MOST_REASONS = 50
MAX_COMMAND_CHARS = 4000
ICONS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️", "skipped": "➖", "error": "⛔"}

# GitHub looks for mentions, issue numbers and addresses in the finished page, where a backslash
# no longer helps; a zero-width space inside them does, and is not seen.
_BREAK = "\N{ZERO WIDTH SPACE}"
_AUTOLINK = re.compile(r"@|#(?=\w)|(?i:GH-)(?=\d)|:(?=//)|(?i:\bwww(?=\.))|(?i:mailto|xmpp):")
_MARKUP = re.compile(r"([\\`*_\[\]~$!{}()])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/?=&%+-]{1,2000}")
_COMMAND = re.compile(r"([^:]*:) ((?:gate|git|pip|python|export) .+)")
_LINE_START = re.compile(r"^([-+=#]|\d+(?=[.)](?:\s|$)))")


def escape(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text as Markdown that shows it on one line, in a paragraph or a table cell."""
    text = _AUTOLINK.sub(lambda match: match[0] + _BREAK, plain(text, limit=limit))
    text = _MARKUP.sub(r"\\\1", text.translate(_ENTITIES))
    return _LINE_START.sub(lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", text)


def escape_lines(text: str, limit: int) -> str:
    """Untrusted text with its line ends, as Markdown in a paragraph or a table cell."""
    text = re.sub(r"\n{3,}", "\n\n", plain(text, lines=True, limit=limit))
    return "<br>".join(escape(line, limit) for line in text.split("\n"))


def escape_tag(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text on one line inside a tag, such as `<summary>`, where no Markdown is read."""
    return html.escape(_AUTOLINK.sub(lambda match: match[0] + _BREAK, plain(text, limit=limit)))


def unbroken(cell: str) -> str:
    """A table cell of numbers, whose words stay on one line."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}")


def fence(text: str) -> str:
    """Untrusted text, such as a command, as a code block."""
    text = plain(text, lines=True, limit=MAX_COMMAND_CHARS)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{text}\n{ticks}"


def fold(title: str, inside: Iterable[str]) -> Iterator[str]:
    """Blocks below a line that opens them; the title is untrusted text."""
    yield f"<details><summary>{escape_tag(title)}</summary>"
    yield from inside
    yield "</details>"


def link(text: str, address: str | None) -> str:
    """A link; the text alone where the address is none that could be meant."""
    if address is None or not _ADDRESS.fullmatch(address):
        return escape(text)
    return f"[{escape(text)}]({address})"


def advice(text: str) -> str:
    """What to do; the command at its end as one can copy it, without `escape`'s invisible signs."""
    found = _COMMAND.fullmatch(plain(text))
    return f"{escape(found[1])} {code(found[2])}" if found else escape(text)


def code(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text as an inline code span, in a paragraph or a table cell."""
    text = plain(text, limit=limit)
    if not text:
        return ""
    # A pipe ends a table cell even inside a code span, and no escape works in both places.
    text = text.replace("|", "\N{BOX DRAWINGS LIGHT VERTICAL}")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"


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
    blocks += drift_table(report.evaluation)
    blocks += speed_table(report.evaluation)
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
    header, cells = metrics.variants(baseline, rows)
    return table(header, [[code(row[0]), *map(escape, row[1:])] for row in cells]) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of numbers; the rows are Markdown already, the header is not."""
    align = [":--", *["--:"] * (len(header) - 1)]
    lines = [[escape(name) for name in header], align, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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


def drift_table(result: EvalResult | None) -> list[str]:
    """How far distributions have moved; nothing where that is not known."""
    rows = [[code(name), *map(escape, cells)] for name, *cells in drifts.rows(result)]
    if result is None or not rows:
        return []
    return [
        f"**{drifts.TITLE}**",
        table(drifts.COLUMNS, rows),
        *map(escape, drifts.notes(result)),
    ]


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
        blocks.append(
            "<table><tr><th>baseline</th><th>candidate</th></tr><tr>"
            f"<td valign=top><pre>{_answer(answer.baseline)}</pre></td>"
            f"<td valign=top><pre>{_answer(answer.candidate)}</pre></td></tr></table>"
        )
    left = len(answers) - wording.MAX_CANARY
    return [*blocks, f"and {wording.count(left, 'more prompt')}"] if left > 0 else blocks


def _answer(text: str) -> str:
    """A model's answer inside `<pre>`, on one source line: a blank one would end the HTML."""
    text = plain(text, lines=True, limit=wording.MAX_ANSWER_CHARS) or "(empty)"
    text = _AUTOLINK.sub(lambda match: match[0] + _BREAK, text)
    return html.escape(text).replace("\n", "&#10;")


def _lint(report: Report) -> list[str]:
    lint = report.lint
    blocks = [f"### Lint: {findings.summary(lint)}"]
    rows = [_finding(report, finding) for finding in findings.listed(lint)]
    if rows:
        blocks.append(left_table(["severity", "rule", "finding", "fix"], rows))
    more = findings.more(lint)
    if more:
        blocks.append(more)
    layers = [[code(name), *map(escape, cells)] for name, *cells in evidence.layer_rows(lint)]
    if layers:
        blocks.append(table(evidence.LAYER_COLUMNS, layers))
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


def left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of texts; header and rows are Markdown already."""
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
