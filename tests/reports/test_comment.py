"""The comment: what it says first, what it leaves out to fit, what hostile strings try on it."""

import re
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from reports_data import ERROR, FP8, linted, make
from run_data import (
    BAD,
    FAIL,
    FLIPS,
    GOOD,
    INSTRUCTIONS,
    NO_BASELINE,
    PASS,
    PROMPT,
    RUNS,
    URL,
    WAIVER,
    changed,
    run,
    with_evidence,
)
from test_reports import BREAK, EVIL, MARKDOWN, hostile, same_as_snapshot, skeleton

from gate.records import GateRun, Policy, ReferencePin, Report
from gate.reports import comment, shorten, wording
from gate.reports.markup import advice

WORDS = {"pass": "PASS", "fail": "FAIL", "error": "ERROR", "skipped": "SKIPPED"}


@pytest.mark.parametrize("name", RUNS)
def test_the_comment_looks_as_it_did(name: str):
    same_as_snapshot(f"comment-{name}.md", comment.render(RUNS[name]))


@pytest.mark.parametrize("name", RUNS)
def test_verdict_then_reason_then_fix(name: str):
    heading, reason, third, *_ = comment.render(RUNS[name]).split("\n\n")
    word = WORDS["fail" if name == "advisory" else RUNS[name].status]
    assert heading.startswith("## ") and f"quant-gate: {word}" in heading
    assert "**" in reason
    assert third.startswith("**Fix:** ") == (word in {"FAIL", "ERROR"})


def test_the_worst_checkpoint_comes_first_and_each_has_a_row():
    text = comment.render(RUNS["many"])
    assert "FAIL, 3 of 6 checkpoints" in text.splitlines()[0]
    rows = re.findall(r"^\| `(\S+)` \| \S+\N{NO-BREAK SPACE}([A-Z]+)", text, re.M)
    assert [word for _, word in rows] == ["FAIL"] * 3 + ["ERROR", "PASS", "PASS"]
    assert len({name for name, _ in rows}) == 6
    assert "- `models/70b-instruct/fp8`: missing-scale: " in text
    assert "- `models/awq`: baselines holds no baseline" in text
    assert "- `models/8b-instruct/nvfp4`" not in text, "its metric is in the table"
    assert (
        "❌\N{NO-BREAK SPACE}0.897\N{NO-BREAK SPACE}(41\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}20)"
        in text
    )


def test_what_else_decided_is_said():
    waived = comment.render(RUNS["waived"])
    assert waived.startswith("## ⚠️ quant-gate: FAIL, waived")
    assert "`kim`" in waived and "2026-11-24 10:30 UTC" in waived
    assert "**Not used:** this change edits `quant-gate.yaml`, `baselines/model.json`" in waived
    assert "`acme/model@0e9e39f` → `acme/model@77aa01b`" in waived
    assert "base commit `4fb2f5e`" in waived
    assert "nothing is blocked" in comment.render(RUNS["advisory"])
    assert "not a verdict on the checkpoint" in comment.render(RUNS["error"])
    assert "from `4fb2f5e` to `9c1e7d3`" in comment.render(RUNS["skipped"])
    assert "quality was not measured" in comment.render(RUNS["static"])


@pytest.mark.parametrize(
    ("name", "close"), [("fail", False), ("borderline", True), ("pass", True), ("static", False)]
)
def test_a_close_verdict_is_said_in_the_first_line(name: str, close: bool):
    text = comment.render(RUNS[name])
    assert ("(borderline)" in text.splitlines()[0]) == close
    assert ("Chance does not explain it" in text) == (name == "fail")


def test_figures_of_a_metric():
    text = comment.render(RUNS["fail"]).replace("\N{NO-BREAK SPACE}", " ")
    assert "| 0.739 | 0.664 | 0.897 | ≥ 0.95 | 41 of 20<br>(61 lost, 20 gained) |" in text
    assert "2.31 times smaller" in text
    assert "`acme/model@0e9e39f249a1`, 12 days old, fingerprint `8d2f6a1b9c3e`" in text
    assert "| `punctuation:no_comma` | 66 | 41 | 22 | −19 |" in text
    assert text.count("| `") == 5 + 1, "five kinds of instruction, and one finding"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("2026-11-21T09:00:00Z", "made today"),
        ("2026-11-20T23:59:00+00:00", "1 day old"),
        ("2025-11-21", "365 days old"),
        ("2026-12-01", "made today"),
        ("yesterday", ""),
    ],
)
def test_age_of_a_baseline(made: str, words: str):
    assert wording.age(made, "2026-11-21T11:00:00Z") == words


def test_a_command_in_a_hint_can_be_copied():
    assert advice("Make it: gate eval a/b@c -o x.json") == "Make it: `gate eval a/b@c -o x.json`"
    assert "`" not in advice("Export it again: its scales are gone.")


def test_texts_of_private_tasks_are_nowhere():
    text = comment.render(RUNS["private"])
    assert "ifeval document 12 lost `punctuation:no_comma`" in text
    assert "publish_text: true" in text
    for words in (GOOD, BAD, PROMPT):
        assert words[:9] not in text
    assert "Dear Maya" in comment.render(RUNS["fail"])


class Tags(HTMLParser):
    """Refuses a page whose tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sound(source: str) -> None:
    """No table, fence or folded part is cut: every line of a table is in one, all tags close."""
    Tags(MARKDOWN.render(source))
    tokens = MARKDOWN.parse(source)
    inside = {
        line
        for token in tokens
        if token.type == "table_open" and token.map
        for line in range(*token.map)
    }
    lines = source.split("\n")
    for token in tokens:
        if token.type == "fence" and token.map:
            first, end = token.map
            assert lines[end - 1] == lines[first] and set(lines[first]) == {"`"}
            lines[first:end] = [""] * (end - first)
    assert {n for n, line in enumerate(lines) if line.startswith("| ")} == inside
    cells = [lines[n].count(" | ") for n in sorted(inside)]
    for before, after in zip(sorted(inside), sorted(inside)[1:], strict=False):
        if after == before + 1:
            assert lines[before].count(" | ") == lines[after].count(" | "), cells


def hostile_run(evil: str) -> GateRun:
    """A run with `evil` wherever a checkpoint, a model, a branch or a reply has a say."""
    texts = dict.fromkeys(("task", "metric", "prompt", "baseline", "candidate"), evil)
    flips = tuple(flip.model_copy(update={**texts, "parts": (evil, evil)}) for flip in FLIPS)
    kinds = {"kind": evil, "task": evil, "metric": evil}
    report = hostile(evil)
    assert report.baseline is not None
    baseline = {"fingerprint": evil, "date": evil, "revision": evil}
    report = report.model_copy(
        update={
            "flips": flips,
            "instructions": tuple(i.model_copy(update=kinds) for i in INSTRUCTIONS),
            "private_tasks": (evil,),
            "reused_from": evil,
            "baseline": report.baseline.model_copy(update=baseline),
        }
    )
    detection = changed(report)
    touched = detection.checkpoints[0].model_copy(
        update={"files": (evil,) * 9, "previous": evil, "change": "renamed"}
    )
    gone = touched.model_copy(update={"change": "removed"})
    return run(
        report,
        failures=tuple(
            NO_BASELINE.model_copy(update={"checkpoint": evil, "message": evil, "hint": evil})
            for _ in range(2)
        ),
        detection=detection.model_copy(
            update={"base": evil, "head": evil, "source": evil, "checkpoints": (touched, gone)}
        ),
        policy=Policy(
            commit=evil,
            digest=evil,
            changed=(evil,) * 9,
            references=(ReferencePin(path=evil, base=evil, head=evil),),
        ),
        waiver=WAIVER.model_copy(update={"label": evil, "by": evil, "expires": evil}),
        head_sha=evil,
        run_url=evil,
        gate_version=evil,
    )


@settings(max_examples=30, deadline=None)
@given(EVIL)
@example("a | b |\n|---|---|\n| c | d |")
@example("```\n</pre></details><img src=x onerror=alert(1)>@user")
@example("</summary>\n\n# heading")
@example("~~~\n```\n````")
@example("https://x.y/)[a](b")
@example("<!-- quant-gate:v1 key=x -->")
@example("x\\")
def test_nothing_untrusted_changes_the_page(evil: str):
    """The same run with a harmless word has exactly the same tags, cells and blocks."""
    source = comment.render(hostile_run(f"x{evil}"), limit=10**7)
    sound(source)
    plain = comment.render(hostile_run("x"), limit=10**7)
    assert without_words(skeleton(source)) == without_words(skeleton(plain))
    page = MARKDOWN.render(source)
    prose = re.sub(r"<code.*?</code>", "", page, flags=re.S)
    assert "<!--" not in prose and "<a " not in prose
    prose = re.sub(r"<[^>]*>", " ", prose)
    assert not re.search(r"@\w|(?<!&)#\w|\bGH-\d|://|\bwww\.", prose, re.I)
    visible = re.sub(f"(?i)(@|#|GH-|:|www){BREAK}", r"\1", source)
    bad = {c for c in visible if unicodedata.category(c) in {"Cc", "Cf", "Cs"}} - {"\n"}
    assert not bad


def without_words(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Titles of folded parts are words too, though they stand inside a tag."""
    return [
        (kind, re.sub(r"<summary>[^<]*</summary>", "<summary></summary>", content))
        for kind, content in found
        if content != "<br>"  # a line end in an answer is shown as one
    ]


def large(reports: int, findings: int, evil: str) -> GateRun:
    """A run over very many checkpoints, each with very many findings, all hostile."""
    words = {"message": evil * 40, "fix": evil * 40, "rule": evil, "file": evil}
    found = tuple(
        ERROR.model_copy(update={**words, "tensor": f"{evil}{n}"}) for n in range(findings)
    )
    long = {"prompt": evil * 400, "baseline": evil * 400, "candidate": evil * 400}
    flips = tuple(flip.model_copy(update=long) for flip in FLIPS)
    broken = with_evidence(make("m", FP8, linted("FP8", *found)), flips=flips)
    return run(
        *(broken.model_copy(update={"checkpoint": f"{evil}/{n}"}) for n in range(reports)),
        *(PASS.model_copy(update={"checkpoint": f"sound/{n}", "flips": flips}) for n in range(9)),
        failures=(NO_BASELINE,) * 9,
    )


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize("limit", [60_000, 20_000, 8_000])
@pytest.mark.parametrize("evil", ["x|`@u#1<b>\n", "\U0001f600|", "</details>\n\n```\n"])
def test_a_very_large_run_fits_and_is_whole(limit: int, evil: str):
    text = comment.render(large(300, 500, evil), limit=limit)
    assert max(len(text.encode()), units(text)) <= limit
    sound(text)
    assert "FAIL, 300 of 318 checkpoints" in text.splitlines()[0]
    assert f"See [the run's summary and report]({URL})." in text
    assert re.search(r"the details of \d+ checkpoints", text)


@pytest.mark.parametrize("detail", shorten.STAGES)
def test_each_stage_is_whole_and_shorter(detail: shorten.Detail, monkeypatch: pytest.MonkeyPatch):
    source = large(3, 20, "a|b ")
    monkeypatch.setattr(shorten, "STAGES", (detail,))
    text = comment.render(source, limit=1)
    sound(text)
    assert ("Left out to keep this short" in text) == (not detail.answer_chars)
    assert ("ifeval document 12**" in text) == bool(detail.answer_chars)


def test_stages_tell_less_and_less():
    def sizes() -> Iterator[int]:
        source = large(30, 5, "ab ")
        for detail in shorten.STAGES:
            yield sum(len(block) for block in comment._blocks(source, detail))

    found = list(sizes())
    assert found == sorted(found, reverse=True)
    assert found[-1] < 3_000


def test_a_limit_is_kept_to_the_byte():
    whole = comment.render(RUNS["fail"])
    size = len(whole.encode())
    assert comment.render(RUNS["fail"], limit=size) == whole
    assert len(comment.render(RUNS["fail"], limit=size - 1).encode()) < size
    history = "- ❌ FAIL"
    longer = len(comment.render(RUNS["fail"], history=history).encode())
    assert comment.render(RUNS["fail"], limit=longer, history=history).startswith(whole)
    shorter = comment.render(RUNS["fail"], limit=longer - 1, history=history)
    assert len(shorter.encode()) < longer and shorter.endswith(f"{history}\n")


def test_history_counts_and_goes_first_where_there_is_no_room():
    history = "<details><summary>Earlier verdicts</summary>\n\n- ❌ FAIL\n\n</details>"
    text = comment.render(RUNS["fail"], history=history)
    assert text.endswith(f"{history}\n")
    sound(text)
    size = len(comment.render(RUNS["fail"], limit=9_000, history=history).encode())
    assert size <= 9_000
    assert "Earlier" not in comment.render(RUNS["fail"], limit=5_000, history=history * 99)


def test_a_small_run_is_told_whole():
    assert "Left out" not in comment.render(RUNS["many"])


def test_reports_of_other_tools_and_older_versions_are_told():
    """No baseline's fingerprint, no flips, no size: nothing is made up."""
    assert FAIL.baseline is not None
    info = FAIL.baseline.model_copy(update={"fingerprint": None})
    bare: Report = FAIL.model_copy(
        update={"baseline": info, "flips": (), "instructions": (), "size": None}
    )
    text = comment.render(run(bare, detection=None, policy=None, run_url=None, head_sha=None))
    assert "fingerprint" not in text and "Size" not in text and "None" not in text
