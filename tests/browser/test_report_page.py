"""The page of a run in a real browser: what it does, and who can use it."""

import re
from pathlib import Path

import pytest
import run_data
from diagnosis_data import DIAGNOSES
from looking import defects, faint, overflow, show, unfold
from playwright.sync_api import Page, expect
from test_html import all_hostile

from gate.reports import html

RUNS = {name: html.render(*run.reports) for name, run in run_data.RUNS.items() if run.reports}
RUNS["diagnosed"] = html.render(run_data.FAIL.model_copy(update={"diagnosis": DIAGNOSES["few"]}))
SCHEMES = ("light", "dark")


@pytest.mark.parametrize("name", RUNS)
def test_everyone_can_read_it(page: Page, tmp_path: Path, name: str):
    """Contrast in both schemes, a sound outline, names for everything, and a narrow screen."""
    show(page, tmp_path, RUNS[name])
    unfold(page)
    assert defects(page) == []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert faint(page) == []
    page.set_viewport_size({"width": 360, "height": 800})
    assert overflow(page) <= 0


def test_what_is_faint_is_found(page: Page, tmp_path: Path):
    show(page, tmp_path, '<body style="background:#fff"><p style="color:#888">grey</p><p>sound</p>')
    (found,) = faint(page)
    assert found.endswith("grey")
    assert defects(page)


def test_a_command_is_copied(page: Page, tmp_path: Path):
    show(page, tmp_path, RUNS["fail"])
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("status").filter(has_text="Copied").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == "gate check models/nvfp4"


def test_what_is_folded_is_printed(page: Page, tmp_path: Path):
    show(page, tmp_path, RUNS["fail"])
    answer = page.get_by_text("P.S. The cat misses you too.").first
    assert not answer.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert answer.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not answer.is_visible()


def test_on_paper_it_is_black_on_white_and_not_cut(page: Page, tmp_path: Path):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 700, "height": 1000})
    show(page, tmp_path, RUNS["many"])
    unfold(page)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert faint(page) == []
    assert not page.get_by_role("button").first.is_visible()
    wide = "[...document.querySelectorAll('table')].filter(t => t.scrollWidth > innerWidth).length"
    assert page.evaluate(wide) == 0


def test_keys_reach_everything_in_order(page: Page, tmp_path: Path):
    show(page, tmp_path, RUNS["fail"])
    met = []
    for _ in range(30):
        page.keyboard.press("Tab")
        met.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 24)"))
        if met[-1] == "Copy":
            break
    assert met[0] == "Skip to the content" and met[-1] == "Copy"
    assert any(re.match("3 of 81 documents", text) for text in met)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.get_by_text('"min_retention": "0.95"').first.is_visible()


def test_only_what_scrolls_is_a_stop_for_the_keyboard(page: Page, tmp_path: Path):
    show(page, tmp_path, RUNS["fail"])
    metrics = page.get_by_role("region", name="Metrics")
    expect(metrics).to_have_attribute("tabindex", "-1")
    page.set_viewport_size({"width": 360, "height": 800})
    expect(metrics).to_have_attribute("tabindex", "0")


def test_a_link_to_a_checkpoint_leads_there(page: Page, tmp_path: Path):
    show(page, tmp_path, RUNS["many"])
    page.get_by_role("link", name="models/70b-instruct/fp8").click()
    assert page.locator("#checkpoint-4").evaluate("e => e.getBoundingClientRect().top") < 100


@pytest.mark.parametrize(
    "evil",
    [
        "</pre></script><script>document.title = 'owned'</script>",
        "\" onload=\"document.title='owned'\" autofocus onfocus=\"document.title='owned'",
        "<svg><animate onbegin=\"document.title='owned'\">",
        "<img src=https://example.invalid/x onerror=\"document.title='owned'\">",
        "<style>body{display:none}</style><link rel=stylesheet href=https://example.invalid/x>",
        "javascript:document.title='owned'",
    ],
)
def test_hostile_text_is_text(page: Page, tmp_path: Path, evil: str):
    """Nothing runs, nothing is asked of a network, and the policy has nothing to refuse."""
    show(page, tmp_path, html.render(all_hostile(evil)))
    unfold(page)
    assert page.title().startswith("FAIL: ")
    assert page.locator("h1").is_visible()
    assert page.locator("main script, main style, main img, main link").count() == 0
    assert evil in page.locator("h1").inner_text()
