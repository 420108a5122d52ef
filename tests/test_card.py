"""The model card: what its author wrote stays, and the hub's own reader finds the results."""

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports_data import REPORTS

from gate.card import BEGIN, END, MAX_BYTES, is_ours, with_results
from gate.errors import CardError
from gate.records import Report

REPORT = REPORTS["pass"]
MINE = """\
---
# whose it is
license: apache-2.0  # with a notice
language: no
tags: [no, chat]

# what it is made from
released: 2026-01-02
model-index:
- name: mine
  results:
  - task: {type: text-generation}
    dataset: {type: x, name: X}
    metrics: [{type: acc, value: 0.1}]
---
# My model

Text.
"""


def written(text: str, report: Report = REPORT) -> str:
    return with_results(text.encode(), report).decode()


def changed(**changes: object) -> Report:
    return REPORT.model_copy(update=changes)


def test_every_line_that_is_not_ours_stays() -> None:
    made = written(MINE)
    for line in MINE.splitlines():
        if not line.startswith(("tags", "  ", "- name")):
            assert line in made.splitlines(), line
    assert made.index("# My model\n\nText.\n") < made.index(BEGIN)
    assert "tags:\n- 'no'\n- chat\n- quant-gate\n\n# what it is made from\n" in made


def test_the_hub_reads_the_results_beside_those_of_others() -> None:
    data = ModelCard(written(MINE)).data
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results or []}
    assert data.model_name == "mine"
    assert results[("X", "acc")] == 0.1
    assert results[("domain.txt", "perplexity")] == pytest.approx(32.236367)
    assert results[("ifeval", "retention")] == pytest.approx(0.97)


def test_what_was_stopped_early_is_no_result() -> None:
    data = ModelCard(written("", REPORTS["early"])).data
    early = [c for c in REPORTS["early"].verdict.comparisons if c.early_stop is not None]
    assert early
    shown = {r.metric_type for r in data.eval_results or [] if r.dataset_name == early[0].task}
    assert early[0].metric not in shown


def test_results_of_an_earlier_push_are_replaced() -> None:
    first = REPORT.verdict.comparisons[:1]
    later = changed(verdict=REPORT.verdict.model_copy(update={"comparisons": first}))
    again = written(written(MINE), later)
    assert again == written(MINE, later)
    assert "perplexity" not in again


@pytest.mark.parametrize(
    "text", ["", "# Only text\n", MINE, MINE.replace("\n", "\r\n"), "---\n---\n"]
)
def test_written_twice_it_is_the_same(text: str) -> None:
    once = written(text)
    assert written(once) == once
    assert once.count(BEGIN) == once.count(END) == 1
    if "\r\n" in text:
        assert "\n" not in once.replace("\r\n", "")


PIECES = [*"-#a: \n", BEGIN, END, "---\n", "\r\n", "tags: x\n", "a:\n- b\n", "# c\n"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_any_text_is_refused_or_kept(text: str) -> None:
    refused_or_kept(text)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=30))
def test_any_metadata_is_refused_or_kept(text: str) -> None:
    refused_or_kept(f"---\n{text}\n---\nMine.\n")


def refused_or_kept(text: str) -> None:
    try:
        once = written(text)
    except CardError:
        return
    assert ModelCard(once).data.eval_results
    assert written(once) == once


def test_a_base_that_may_be_a_directory_is_not_claimed() -> None:
    base = REPORT.baseline
    assert base is not None and base.revision is not None
    assert f"base_model: {base.model}\n" in written("")
    local = base.model_copy(update={"revision": None})
    assert "base_model" not in written("", changed(baseline=local))
    assert "base_model: other/one\n" in written("---\nbase_model: other/one\n---\n")


def test_a_hostile_report_writes_no_markup_and_no_metadata() -> None:
    evil = f"x\n---\nlicense: evil\n---\n{END}<script>alert(1)</script>![](http://e.vil/)"
    comparison = REPORT.verdict.comparisons[0].model_copy(update={"task": evil, "metric": evil})
    verdict = REPORT.verdict.model_copy(update={"comparisons": (comparison,), "reasons": (evil,)})
    made = written("", changed(verdict=verdict, checkpoint=f"models/{evil}", date=evil))
    _, front, body = made.split("---\n", 2)
    assert yaml.safe_load(front).keys() == {"base_model", "tags", "model-index"}
    assert body.count(END) == body.count(BEGIN) == 1
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert "<script" not in html and "<img" not in html
    assert written(made, changed(verdict=verdict, checkpoint=f"models/{evil}", date=evil)) == made


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("---\ntags: &a [x]\nothers: *a\n---\n", "alias"),
        ("---\n{license: mit}\n---\n", "one key a line"),
        ("---\n- license\n---\n", "one key a line"),
        ("---\n~\n---\n", "one key a line"),
        ("---\n?\n---\n", "no text"),
        ("---\n1: one\n---\n", "no text"),
        ("---\nlicense: mit\nlicense: gpl\n---\n", "twice"),
        ("---\nlicense: [\n---\n", "cannot be read"),
        ("---\na: !!bool x\n---\n", "cannot be read"),
        ("---\na: !!timestamp x\n---\n", "cannot be read"),
        ("---\na: !!int ''\n---\n", "cannot be read"),
        ("---\nmodel-index: mine\n---\n", "as the hub defines it"),
        ("---\nmodel-index:\n- name: x\n---\n", "as the hub defines it"),
        ("---\na: " + "[" * 100_000 + "\n---\n", "too large"),
        ("x" * (MAX_BYTES + 1), "larger than"),
    ],
    ids=lambda value: value[:20],
)
def test_a_card_that_cannot_take_them_says_why(text: str, reason: str) -> None:
    with pytest.raises(CardError, match=reason):
        written(text)


def test_a_card_that_is_not_text_says_so() -> None:
    with pytest.raises(CardError, match="not UTF-8"):
        with_results(b"\xff\xfe", REPORT)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("", True),
        ("---\ntags: [x]\n---\n", True),
        ("---\nlicense: mit\n---\n", False),
        ("---\na: !!bool x\n---\n", False),
        ("Mine.", False),
        (MINE, False),
    ],
)
def test_whose_text_a_card_is(text: str, ours: bool) -> None:
    assert is_ours(text.encode()) is ours


def test_a_card_that_a_push_made_is_its_own() -> None:
    assert is_ours(written("").encode())
    assert not is_ours(written(MINE).encode())
