"""The dashboard in a real browser: what it does, and who can use it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import seen, several
from looking import defects, faint, overflow
from playwright.sync_api import Browser, Locator, Page

from gate.dashboard import dashboard

HOSTILE = (
    "</script><script>document.title = 'owned'</script>",
    "\" onload=\"document.title='owned'\" autofocus onfocus=\"document.title='owned'",
    "<img src=https://example.invalid/x onerror=\"document.title='owned'\">",
    "javascript:document.title='owned'",
    "مرحبا \u202e\u2066abc",
    "long-" * 60,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two families, and more reports than one page of the table holds."""
    directory = tmp_path_factory.mktemp("site")
    more = [seen("models/daily", 0.96 + day / 1e4, day=day) for day in range(120)]
    dashboard([*several(), *more], directory, per_checkpoint=2)
    return directory


@pytest.fixture
def opened(page: Page, site: Path) -> Callable[..., Page]:
    """Opens the dashboard with a hash."""

    def go(state: str = "") -> Page:
        page.goto("about:blank")
        page.goto((site / "index.html").as_uri() + state)
        return page

    return go


def column(page: Page, number: int) -> list[str]:
    """A column of the table of all reports, the leftmost being 1."""
    return page.locator(f"#reports tbody tr > :nth-child({number})").all_inner_texts()


def shown(page: Page) -> str:
    return page.locator("#shown").inner_text()


def by_key(page: Page, target: Locator) -> None:
    """Go there by Tab alone, and press Enter."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if target.evaluate("e => e === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError("no key leads there")


@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_everyone_can_read_the_dashboard(opened: Callable[..., Page], width: int) -> None:
    page = opened()
    page.set_viewport_size({"width": width, "height": 900})
    assert defects(page) == []
    assert overflow(page) <= 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert faint(page) == []


def test_the_first_line_says_what_is_releasable(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.locator("h1").inner_text() == "3 of 6 checkpoints are releasable"
    listed = page.locator(".blocked li").all_inner_texts()
    assert [text.split()[-1] for text in listed[:1]] == ["models/linted"]
    assert {text.split()[0] for text in listed} == {"FAIL", "not"}


def test_reports_are_filtered_and_the_view_can_be_sent(opened: Callable[..., Page]) -> None:
    page = opened()
    assert shown(page) == "140 reports, 1 to 100 shown"
    page.get_by_label("Outcome").select_option("fail")
    page.get_by_label("Search").fill("INT4 models")
    assert shown(page) == "6 of 140 reports match"
    assert set(column(page, 3)) == {"FAIL"}
    page.get_by_role("button", name="retained").click()
    page.get_by_role("button", name="retained").click()
    retained = column(page, 4)
    assert retained == sorted(retained) and retained[0] == "0.910"
    again = opened(page.evaluate("location.hash"))
    assert column(again, 4) == retained
    assert again.get_by_label("Search").input_value() == "INT4 models"
    assert again.locator("#reports").bounding_box()["y"] < 900
    again.get_by_role("button", name="Show all").click()
    assert shown(again) == "140 reports, 1 to 100 shown"
    assert again.get_by_label("Outcome").input_value() == ""


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Baseline", "acme/large", "1 of 140 reports matches"),
        ("Format", "modelopt: NVFP4", "6 of 140 reports match"),
        ("Branch", "try", "3 of 140 reports match"),
    ],
)
def test_each_filter(opened: Callable[..., Page], label: str, value: str, said: str) -> None:
    page = opened()
    page.get_by_label(label, exact=True).select_option(value)
    assert shown(page) == said


def test_only_the_newest_of_each(opened: Callable[..., Page]) -> None:
    page = opened()
    page.get_by_label("Newest of each").check()
    names = column(page, 2)
    assert len(names) == len(set(names)) == 6


def test_nothing_found_is_said(opened: Callable[..., Page]) -> None:
    page = opened("#q=no+such+thing")
    assert shown(page) == "No report matches"
    assert not page.locator("#reports").is_visible()


@pytest.mark.parametrize(
    "state", ["#page=999", "#sort=constructor&dir=up&page=-1", "#q=%E0%A4%A", "#family=none"]
)
def test_a_strange_hash_breaks_nothing(opened: Callable[..., Page], state: str) -> None:
    page = opened(state)
    assert "140 reports" in shown(page) or shown(page) == "No report matches"


def test_every_column_sorts_both_ways(opened: Callable[..., Page]) -> None:
    page = opened("#newest=1")
    buttons = page.locator("#reports thead button")
    for number in range(buttons.count()):
        orders = []
        for _ in range(2):
            buttons.nth(number).click()
            orders.append(buttons.nth(number).locator("xpath=..").get_attribute("aria-sort"))
        assert set(orders) == {"ascending", "descending"}
        assert page.locator("#reports th[aria-sort]").count() == 1
    buttons.nth(3).click()
    # What has no figure comes last, whichever way.
    for _ in range(2):
        buttons.nth(3).click()
        assert column(page, 4)[-1] == ""


def test_the_table_is_turned_page_by_page(opened: Callable[..., Page]) -> None:
    page = opened()
    page.get_by_role("button", name="Next page").click()
    assert shown(page) == "140 reports, 101 to 140 shown"
    assert "page=2" in page.evaluate("location.hash")
    assert page.get_by_role("button", name="Next page").is_disabled()
    page.get_by_role("button", name="Previous page").click()
    assert len(column(page, 1)) == 100


def test_reports_are_linked_and_link_back(opened: Callable[..., Page], site: Path) -> None:
    page = opened()
    page.locator("#reports tbody a", has_text="models/linted").click()
    assert page.locator("h1").inner_text().startswith("PASS")
    page.locator('a[href="../index.html"]').click()
    assert page.locator("h1").inner_text().endswith("releasable")
    linked = page.eval_on_selector_all(
        "a[href^='reports/']", "found => found.map(e => e.getAttribute('href'))"
    )
    assert {f"reports/{file.name}" for file in (site / "reports").iterdir()} == set(linked)


def test_a_mark_tells_its_figures_and_leads_to_its_report(opened: Callable[..., Page]) -> None:
    page = opened()
    mark = page.get_by_role("link", name="models/nvfp4: FAIL")
    told = mark.locator(".told")
    assert not told.is_visible()
    mark.locator("circle, path").first.hover()
    assert told.is_visible()
    assert "retained 0.945, limit ≥ 0.95" in (told.text_content() or "")
    page.mouse.move(0, 0)
    by_key(page, page.get_by_role("link", name="models/nvfp4: FAIL"))
    page.wait_for_url("**/reports/*.html")
    assert "models/nvfp4" in page.locator("h1").inner_text()


def test_keys_alone_sort_the_table(opened: Callable[..., Page]) -> None:
    page = opened("#newest=1")
    by_key(page, page.get_by_role("button", name="size"))
    assert (
        page.get_by_role("columnheader", name="size").last.get_attribute("aria-sort")
        == "descending"
    )
    assert column(page, 6)[0] == "70.5 GB"


def test_the_number_of_reports_leads_to_them(opened: Callable[..., Page]) -> None:
    page = opened()
    row = page.locator("#family-1 tbody tr", has_text="models/nvfp4")
    row.get_by_role("link", name="6").click()
    assert shown(page) == "6 of 140 reports match"
    page.get_by_role("navigation").get_by_role("link", name="Formats").click()
    assert shown(page) == "6 of 140 reports match"


def test_without_scripts_all_but_the_last_table_is_there(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto((site / "index.html").as_uri())
    assert plain.locator("figure svg").count() > 5
    assert plain.get_by_text("which this browser does not run").is_visible()
    assert not plain.locator("#filters").is_visible()
    context.close()


def test_on_paper_nothing_is_cut(opened: Callable[..., Page]) -> None:
    page = opened()
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 700, "height": 1000})
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert faint(page) == []
    assert not page.locator("#filters").is_visible()
    assert not page.locator("nav").first.is_visible()
    wide = "[...document.querySelectorAll('table, svg')].filter(t => t.scrollWidth > innerWidth)"
    assert page.evaluate(f"{wide}.map(t => t.outerHTML.slice(0, 90))") == []


def test_hostile_names_do_nothing(page: Page, tmp_path: Path) -> None:
    dashboard(
        [seen(evil, model=evil, branch=evil, day=i) for i, evil in enumerate(HOSTILE)], tmp_path
    )
    page.goto((tmp_path / "index.html").as_uri())
    assert page.title() == "All 6 checkpoints are releasable - quant-gate"
    assert page.locator("main img, main a[href^='javascript']").count() == 0
    assert column(page, 2)[-1] == HOSTILE[0]
    for evil in HOSTILE[:4]:
        page.get_by_label("Branch").select_option(evil)
        assert shown(page) == "1 of 6 reports matches"
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflow(page) <= 0
    assert defects(page) == []


def test_an_empty_dashboard_says_how_to_fill_it(page: Page, tmp_path: Path) -> None:
    dashboard([], tmp_path)
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator("h1").inner_text() == "No report yet"
    assert page.get_by_role("button", name="Copy").count() == 3
    assert defects(page) == []
