"""Every report format against its snapshot, and against what hostile strings try."""

import html
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports_data import CANARY, ERROR, FP8, REPORTS, linted, make, rows

from gate import records
from gate.records import Finding, Previous, Report, Skipped
from gate.reports import REPORTS as FORMATS
from gate.reports import markdown, markup, text
from gate.reports.wording import plain

SNAPSHOTS = Path(__file__).parent / "snapshots"
ENDINGS = {
    "text": "txt", "markdown": "md", "json": "json", "sarif": "sarif", "github": "github.txt",
    "junit": "junit.xml",
}  # fmt: skip
BREAK = "\N{ZERO WIDTH SPACE}"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def same_as_snapshot(name: str, content: str) -> None:
    """Compare; QUANT_GATE_WRITE_SNAPSHOTS=1 writes them anew, to be read before they are kept."""
    path = SNAPSHOTS / name
    if os.environ.get("QUANT_GATE_WRITE_SNAPSHOTS"):
        path.write_text(content, encoding="utf-8")
    assert content == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("name", REPORTS)
def test_reports_look_as_they_did(kind: str, name: str):
    same_as_snapshot(f"{name}.{ENDINGS[kind]}", FORMATS[kind](REPORTS[name]))


@pytest.mark.parametrize("kind", ENDINGS)
def test_reports_of_several_checkpoints_look_as_they_did(kind: str):
    several = FORMATS[kind](REPORTS["lint"], REPORTS["reference"])
    same_as_snapshot(f"several.{ENDINGS[kind]}", several)


def test_the_table_of_variants_looks_as_it_did():
    same_as_snapshot("variants.txt", text.variants(*rows()))
    same_as_snapshot("variants.md", markdown.variants(*rows()))


@pytest.mark.parametrize("name", REPORTS)
def test_verdict_then_reason_then_fix(name: str):
    report = REPORTS[name]
    word = report.verdict.outcome.upper()
    wide = text.render(report, width=400).splitlines()
    assert wide[0].startswith(f"{word}  {report.checkpoint}")
    assert wide[1] == report.verdict.reasons[0]
    blocks = markdown.render(report).split("\n\n")
    assert word in blocks[0] and report.checkpoint in blocks[0]
    assert blocks[1].startswith("**") and blocks[1].endswith("**")
    if report.verdict.fix:
        assert wide[2] == f"Fix: {report.verdict.fix}"
        assert blocks[2].startswith("Fix: ")
    others = {"PASS", "FAIL", "INCONCLUSIVE"} - {word}
    assert word == "FAIL" or not any(other in "\n".join(wide) for other in others)


def test_colour_only_where_asked():
    report = REPORTS["fail"]
    assert "\x1b[" not in text.render(report)
    coloured = text.render(report, color=True)
    assert "\x1b[1;31mFAIL" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == text.render(report).split()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_text_keeps_to_the_terminal(width: int):
    for report in REPORTS.values():
        assert max(map(len, text.render(report, width=width).splitlines())) <= width


def test_json_is_read_back_whole(tmp_path: Path):
    (tmp_path / "r.json").write_text(FORMATS["json"](REPORTS["fail"]))
    read = records.read(tmp_path / "r.json", Report)
    assert read.model_dump() == REPORTS["fail"].model_dump()
    assert not any(rule.manual for rule in read.lint.rules_run), "the manual is not stored"


def test_a_report_with_very_many_findings_stays_readable():
    many = tuple(ERROR.model_copy(update={"tensor": f"t{index}"}) for index in range(5000))
    report = make("m", None, linted("FP8", *many))
    for render in (text.render, markdown.render):
        assert "and 4,950 more" in render(report)
        assert len(render(report)) < 60_000


def hostile(evil: str) -> Report:
    """A report with `evil` wherever a checkpoint, a model or the settings have a say."""
    finding = Finding(
        rule=evil, severity="error", message=evil, tensor=evil, file=evil, pointer=evil, fix=evil
    )
    lint = linted(evil, finding, finding.model_copy(update={"ignored": evil}))
    lint = lint.model_copy(update={"skipped": (Skipped(rule=evil, reason=evil),)})
    answer = CANARY.model_copy(
        update=dict.fromkeys(("task", "defect", "prompt", "baseline", "candidate"), evil)
    )
    report = make(evil, FP8, lint)
    comparisons = tuple(
        c.model_copy(update={"task": evil, "metric": evil, "reason": evil})
        for c in REPORTS["fail"].verdict.comparisons
    )
    verdict = report.verdict.model_copy(
        update={
            "reasons": (evil, evil),
            "fix": evil,
            "comparisons": comparisons,
            "canary": (answer,),
        }
    )
    info = {"path": evil, "model": evil, "device": evil, "warnings": (evil,)}
    assert report.baseline is not None
    return report.model_copy(
        update={
            "revision": evil,
            "command": evil,
            "verdict": verdict,
            "baseline": report.baseline.model_copy(update=info),
            "reused_from": evil,
            "previous": Previous(
                content="0" * 64,
                revision=evil,
                weights_digest=evil,
                date=evil,
                comparisons=comparisons,
                missing=(evil,),
            ),
            "evaluation": FP8.model_copy(update={"device": evil, "kernel": evil}),
        }
    )


def skeleton(source: str) -> list[tuple[str, str]]:
    """The tags of the rendered page, without the words in it."""
    tokens = MARKDOWN.parse(source)
    found = []
    for token in tokens:
        for part in [token, *(token.children or [])]:
            if part.type in {"text", "code_inline", "inline", "text_special"}:
                continue
            raw = re.sub(r"<pre>.*?</pre>", "<pre></pre>", part.content, flags=re.S)
            found.append((part.type, raw if "html" in part.type else ""))
    return found


WORDS = [
    "|", "\n", "\r\n", "\n\n", "`", "```", "~~~", "<", ">", "<script>", "</pre>", "</td></tr>",
    "<!--", "-->", "</details>", "@user", "@org/team", "#1", "GH-1", "http://x.y", "www.x.y",
    "a@b.cd", "[a](b)", "![a](b)", "**", "__", "~~", "\\", "&lt;", "&#64;user", "# ", "- ", "1. ",
    "+ ", "=", "---", "> ", "    ", "\t", "\x1b[31m", "\x1b]8;;http://x\x07", "\x9b31m", "\x00",
    "\x07", "\u202e", "\u200b", "\u2028", "\u2066", "\ufeff", "\U000e0041", "\ud800", "$x$", ":+1:",
    "[bold]", "[/]", "a", " ", "x.safetensors",
]  # fmt: skip
EVIL = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), min_size=1, max_size=8).map("".join)


@settings(max_examples=60, deadline=None)
@given(EVIL)
@example("a | b |\n|---|---|\n| c | d |")
@example("```\n</pre><img src=x onerror=alert(1)>@user")
@example("\\|\\`\\<b>")
@example("x\\")
@example("`")
def test_nothing_untrusted_changes_the_page(evil: str):
    """The same report with a harmless word has exactly the same tags, cells and blocks."""
    source = markdown.render(hostile(f"x{evil}"))
    assert skeleton(source) == skeleton(markdown.render(hostile("x")))
    page = MARKDOWN.render(source)
    prose = re.sub(r"<code>.*?</code>", "", page, flags=re.S)
    prose = re.sub(r"<[^>]*>", " ", prose)
    assert not re.search(r"@\w|(?<!&)#\w|\bGH-\d|://|\bwww\.", prose, re.I)
    visible = re.sub(f"(?i)(@|#|GH-|:|www){BREAK}", r"\1", source)
    bad = {c for c in visible if unicodedata.category(c) in {"Cc", "Cf", "Cs"}} - {"\n"}
    assert not bad


@settings(max_examples=60, deadline=None)
@given(EVIL)
def test_nothing_untrusted_reaches_the_terminal(evil: str):
    report = hostile(evil)
    for color in (False, True):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", text.render(report, color=color))
        bad = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
        assert bad <= {"\n"}
    assert "\x1b" not in text.render(report)


@settings(max_examples=200)
@given(EVIL)
def test_a_code_span_shows_one_span(evil: str):
    (paragraph,) = [t for t in MARKDOWN.parse(markup.code(f"x{evil}")) if t.type == "inline"]
    assert [child.type for child in paragraph.children or []] == ["code_inline"]


@pytest.mark.parametrize("written", [markup.escape, markup.code])
@settings(max_examples=100)
@given(evil=EVIL)
@example(evil="\\|")
def test_a_cell_stays_one_cell(written, evil: str):
    page = MARKDOWN.render(f"| a | b |\n|---|---|\n| {written(f'x{evil}')} | end |\n")
    assert page.count("<td>") == 2
    assert page.count("<td>end</td>") == 1


@settings(max_examples=200)
@given(EVIL)
def test_escaped_text_shows_as_it_is(evil: str):
    """Escaping hides nothing: what is read on the page is the text, without its controls."""
    page = MARKDOWN.renderInline(markup.escape(evil))
    assert html.unescape(page).replace(BREAK, "") == plain(evil)
