"""The page of a run as a browser reads it: sound HTML, and text that stays text."""

import html as entities
import re

import pytest
import run_data
from diagnosis_data import DIAGNOSES
from hypothesis import example, given, settings
from justhtml import JustHTML
from reports_data import REPORTS
from results import throughput
from test_reports import EVIL, hostile

from gate.records import (
    Flip,
    InstructionChange,
    ModuleSensitivity,
    Previous,
    Report,
    SizeBucket,
)
from gate.reports import html
from gate.reports.differing import sides
from gate.reports.intervals import WIDTH, interval
from gate.reports.wording import plain

RUNS = {name: run.reports for name, run in run_data.RUNS.items() if run.reports}


def parsed(page: str) -> JustHTML:
    """The document; any error of a strict HTML5 parser fails the test."""
    return JustHTML(page, strict=True, sanitize=False)


def words(node) -> str:
    return " ".join(node.to_text().split())


@pytest.mark.parametrize("name", RUNS)
def test_pages_are_sound_html(name: str):
    document = parsed(html.render(*RUNS[name]))
    for element in document.query("*"):
        attributes = element.attrs or {}
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
        assert not {"src", "action", "formaction", "srcset"} & attributes.keys()
        href = attributes.get("href") or "#"
        assert href.startswith("#") or (element.name == "link" and href.startswith("data:image/"))


@pytest.mark.parametrize("name", REPORTS)
def test_verdict_then_reason_then_fix(name: str):
    report = REPORTS[name]
    (article,) = parsed(html.render(report)).query("article")
    lines = [words(child) for child in article.children if words(child)]
    assert lines[0].startswith(report.verdict.outcome.upper())
    assert lines[0].endswith(report.checkpoint)
    if report.verdict.fix:
        assert lines[2] == f"Fix: {report.verdict.fix}"


def test_everything_of_a_failed_run_is_there():
    speed = throughput()
    size = run_data.FAIL.size.model_copy(
        update={
            "by_class": {"embedding": SizeBucket(stored_bytes=56_000_000, parameters=28_311_552)}
        }
    )
    report = run_data.FAIL.model_copy(
        update={
            "evaluation": run_data.FAIL.evaluation.model_copy(update={"throughput": speed}),
            "size": size,
            "policy_digest": "c0ffee" + "0" * 58,
            "digests": {"model.safetensors": "beef" + "0" * 60},
        }
    )
    page = html.render(report)
    shown = words(parsed(page).query("main")[0])
    for told in (
        "ifeval inst_level_strict_acc", "0.855 to 0.940", "Chance does not explain it",
        "punctuation:no_comma 66 41 22", "3 of 81 documents", "Do not use any commas",
        "P.S. The cat misses you too.", "configs-disagree-exclude", "no reference was named",
        "first token, s", "embedding 56.0 MB", "8d2f6a1b9c3e", "c0ffee", "beef", "torch 2.13.0",
        '"min_retention": "0.95"', "gate check models/nvfp4",
    ):  # fmt: skip
        assert told in shown, told


def test_of_several_checkpoints_each_has_a_row_that_leads_to_it():
    document = parsed(html.render(*run_data.MANY))
    assert words(document.query("h1")[0]).startswith("FAIL 5 checkpoints: 2 PASS, 3 FAIL")
    links = [row.query("a")[0].attrs["href"] for row in document.query("main > div tbody tr")]
    assert links == [f"#{article.attrs['id']}" for article in document.query("article")]
    assert len(links) == 5


def test_a_page_leads_back_where_it_is_told_to():
    (link,) = parsed(html.render(REPORTS["pass"], home="../index.html")).query("header a")
    assert link.attrs["href"] == "../index.html"


def test_private_texts_stay_private():
    page = html.render(run_data.PRIVATE)
    assert "commas" not in page and "Maya" not in page
    assert "ifeval document 12: lost" in words(parsed(page).query("main")[0])


def test_an_advisory_run_says_so_in_its_first_line():
    (report,) = run_data.RUNS["advisory"].reports
    advisory = report.model_copy(update={"policy": run_data.RUNS["advisory"].policy})
    assert words(parsed(html.render(advisory)).query("h1")[0]) == "FAIL, advisory models/nvfp4"


def test_a_diagnosis_says_where_it_hurts_and_what_to_write():
    diagnosed = run_data.FAIL.model_copy(update={"diagnosis": DIAGNOSES["few"]})
    shown = words(parsed(html.render(diagnosed)).query("main")[0])
    for told in ("What helps: Leave 2 modules", "model.layers.3.mlp.down_proj 0.1700", "mtq."):
        assert told in shown, told


def test_a_broken_module_is_mended_and_not_left_out_of_the_page():
    broken = DIAGNOSES["scale"].model_copy(update={"exclusion": DIAGNOSES["few"].exclusion})
    page = html.render(run_data.FAIL.model_copy(update={"diagnosis": broken}))
    assert "mtq." not in words(parsed(page).query("main")[0])


def test_what_passed_last_is_compared():
    last = Previous(
        content="0" * 64,
        weights_digest="1" * 64,
        date="2026-11-20T11:00:00Z",
        comparisons=REPORTS["pass"].verdict.comparisons[:1],
    )
    page = html.render(REPORTS["pass"].model_copy(update={"previous": last}))
    assert "Against what passed last" in [words(h) for h in parsed(page).query("h2")]


def all_hostile(evil: str) -> Report:
    """Hostile text in what other reports do not show, too."""
    flip = Flip(
        task=evil, metric=evil, doc_id=1, gained=False, parts=(evil,), prompt=evil,
        baseline=evil, candidate=f"other {evil}",
    )  # fmt: skip
    kind = InstructionChange(task=evil, metric=evil, kind=evil, n=1, baseline=1, candidate=0)
    module = ModuleSensitivity(
        module=evil, kind=evil, layer=1, returned=0.39, measured=True, weight_error=3, weight_gain=4
    )
    return hostile(evil).model_copy(
        update={
            "flips": (flip,),
            "instructions": (kind,),
            "settings": {evil: [evil]},
            "digests": {evil: evil},
            "diagnosis": DIAGNOSES["few"].model_copy(update={"modules": (module,), "text": evil}),
        }
    )


def outline(page: str) -> list[object]:
    return [(element.name, sorted(element.attrs or {})) for element in parsed(page).query("*")]


@settings(max_examples=25, deadline=None)
@given(EVIL)
@example('"><script>alert(1)</script>')
@example("' onmouseover='alert(1)' x='")
@example("</title></style></script><img src=x onerror=alert(1)>")
@example("javascript:alert(1)")
@example("{{ 7 * 7 }}{% raw %}")
@example("\u202egnp.\u2066exe\ud800\x00\x1b[31m")
@example("<!--<script>")
def test_nothing_untrusted_changes_the_page(evil: str):
    """The same report with a harmless word has exactly the same elements and attributes."""
    page = html.render(all_hostile(f"x{evil}"))
    assert outline(page) == outline(html.render(all_hostile("x")))
    heading = parsed(page).query("h1 .checkpoint")[0]
    assert words(heading) == plain(f"x{evil}@x{evil}")
    assert all(char.isprintable() or char == "\n" for char in page)
    page.encode("utf-8")


def test_text_cannot_become_a_workflow_command():
    report = hostile("first\n::error::x\n  ::set-output::y\n##[add-mask]z")
    for line in html.render(report).splitlines():
        assert not line.lstrip().startswith("::") and "##[" not in line


def test_the_limit_is_drawn_where_it_is():
    comparison = REPORTS["fail"].verdict.comparisons[0]
    drawn = interval(comparison)
    assert drawn is not None
    assert drawn.low < drawn.value < drawn.high < drawn.limit < drawn.same
    assert drawn.allowed == (drawn.limit, WIDTH - drawn.limit)
    perplexity = interval(REPORTS["fail"].verdict.comparisons[-1])
    assert perplexity is not None
    assert perplexity.same < perplexity.limit < perplexity.low
    assert perplexity.allowed == (0.0, perplexity.limit)


@pytest.mark.parametrize(
    "change",
    [
        {"retention": float("nan")},
        {"ci_high": float("inf")},
        {"ci_low": None},
        {"threshold": None},
        {"absolute": True},
        {"min_score": "0.5"},
    ],
    ids=str,
)
def test_nothing_is_drawn_where_there_is_nothing_to_draw(change: dict[str, object]):
    assert interval(REPORTS["fail"].verdict.comparisons[0].model_copy(update=change)) is None


def marked(baseline: str, candidate: str) -> tuple[str, str]:
    """Both texts, with brackets around what only one has."""
    return tuple(  # type: ignore[return-value]
        "".join(f"[{piece.text}]" if piece.own else piece.text for piece in side)
        for side in sides(baseline, candidate)
    )


def test_answers_are_compared_word_by_word():
    assert marked("one two three\nfour", "one two 3\nfour") == (
        "one two [three]\nfour", "one two [3]\nfour",
    )  # fmt: skip
    assert marked("same", "same") == ("same", "same")
    assert marked("", "new") == ("", "[new]")
    # A word alone between changes is there by chance.
    assert (
        marked("we saw the cat here", "they were near the dog there")[0] == "[we saw the cat here]"
    )


@settings(max_examples=100, deadline=None)
@given(EVIL, EVIL)
def test_a_comparison_loses_no_text(baseline: str, candidate: str):
    for text, side in zip((baseline, candidate), sides(baseline, candidate), strict=True):
        assert "".join(piece.text for piece in side) == plain(text, lines=True, limit=4000)


def test_long_answers_are_compared_in_time():
    """A loop, and a text of very many different words: nothing here is quadratic for long."""
    loop, other = "again and " * 2000, " ".join(map(str, range(2000)))
    for first, second in ((loop, other), (loop, "and again " * 2000), (other, other[::-1])):
        assert all(sides(first, second))


def test_entities_are_read_once():
    report = REPORTS["pass"].model_copy(update={"checkpoint": "a&lt;b&amp;c"})
    assert entities.unescape(re.findall(r'class="checkpoint">(.*?)<', html.render(report))[0]) == (
        "a&lt;b&amp;c"
    )


def test_a_report_of_a_run_without_a_model_is_short():
    page = html.render(REPORTS["lint"])
    shown = [words(heading) for heading in parsed(page).query("h2")]
    assert shown == ["Static validation", "Size", "How it was judged"]


def test_very_long_texts_do_not_make_a_page_that_no_browser_opens():
    assert len(html.render(all_hostile("tensor" * 100_000))) < 1_000_000
