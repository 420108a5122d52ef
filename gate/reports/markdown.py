"""The report as GitHub Markdown: a comment on a pull request, a job summary.

Names, messages and answers come from checkpoints and models, and anyone may send those. None of
it may become a table row, a link, a mention, a tag or a code block: it is written through
`escape`, `code` or `_answer`.
"""

import html
import re
from collections.abc import Sequence

from gate.records import CanaryAnswer, Comparison, EvalResult, Finding, Report
from gate.reports import evidence, findings, wording
from gate.reports.wording import plain

MOST_REASONS = 50
ICONS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}

# GitHub looks for mentions, issue numbers and addresses in the finished page, where a backslash
# no longer helps; a zero-width space inside them does, and is not seen.
_BREAK = "\N{ZERO WIDTH SPACE}"
_AUTOLINK = re.compile(r"@|#(?=\w)|(?i:GH-)(?=\d)|:(?=//)|(?i:\bwww(?=\.))|(?i:mailto|xmpp):")
_MARKUP = re.compile(r"([\\`*_\[\]~$!{}()])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_LINE_START = re.compile(r"^([-+=#]|\d+(?=[.)](?:\s|$)))")


def escape(text: str) -> str:
    """Untrusted text as Markdown that shows it on one line, in a paragraph or a table cell."""
    text = _AUTOLINK.sub(lambda match: match[0] + _BREAK, plain(text))
    text = _MARKUP.sub(r"\\\1", text.translate(_ENTITIES))
    return _LINE_START.sub(lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", text)


def code(text: str) -> str:
    """Untrusted text as an inline code span, in a paragraph or a table cell."""
    text = plain(text)
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
    # The reasons of lint are its findings.
    others = verdict.reasons[1:MOST_REASONS] if verdict.stage != "lint" else ()
    if others:
        blocks.append("\n".join(f"- {escape(reason)}" for reason in others))
    if verdict.comparisons:
        blocks += _metrics(verdict.comparisons)
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
    header, cells = wording.variant_table(baseline, rows)
    return _table(header, [[code(row[0]), *map(escape, row[1:])] for row in cells]) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; the rows are Markdown already, the header is not."""
    align = [":--", *["--:"] * (len(header) - 1)]
    lines = [[escape(name) for name in header], align, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _metrics(comparisons: Sequence[Comparison]) -> list[str]:
    rows = []
    for comparison in comparisons:
        name, *cells, outcome = wording.metric_cells(comparison)
        shown = escape(outcome)
        rows.append(
            [
                code(name),
                *map(escape, cells),
                shown if comparison.outcome is None else f"**{shown}**",
            ]
        )
    blocks = [_table(wording.METRIC_COLUMNS, rows)]
    sentences = wording.budget_sentences(comparisons)
    if sentences:
        blocks.append("\n".join(f"- Error budget, {escape(sentence)}" for sentence in sentences))
    borderline = wording.borderline_sentence(comparisons)
    return [*blocks, escape(borderline)] if borderline else blocks


def _canary(answers: Sequence[CanaryAnswer]) -> list[str]:
    """Both answers to each prompt, side by side; raw HTML, since a pipe table has no lines."""
    blocks = []
    for answer in answers[: wording.MAX_CANARY]:
        title = f"{answer.task} document {answer.doc_id}: {answer.defect}"
        blocks.append(f"### {escape(title)}\n\nPrompt: {escape(answer.prompt)}")
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
        blocks.append(_left_table(["severity", "rule", "finding", "fix"], rows))
    more = findings.more(lint)
    if more:
        blocks.append(more)
    layers = [[code(name), *map(escape, cells)] for name, *cells in evidence.layer_rows(lint)]
    if layers:
        blocks.append(_table(evidence.LAYER_COLUMNS, layers))
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


def _left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
