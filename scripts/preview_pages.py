"""Pictures of the page of a run: light, dark, narrow and as it is printed, all of it unfolded.

python scripts/preview_pages.py DIRECTORY                 the runs of tests/reports/run_data.py
python scripts/preview_pages.py DIRECTORY REPORT.json...  stored reports, or runs of the action
"""

import argparse
import runpy
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from gate import report
from gate.records import Report
from gate.reports import html

TESTS = Path(__file__).parent.parent / "tests"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 800}},
}


def main() -> None:
    """Write one page a run, and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("reports", nargs="*", type=Path)
    asked = parser.parse_args()
    asked.directory.mkdir(parents=True, exist_ok=True)
    pages = []
    for name, reports in (_stored(asked.reports) if asked.reports else _examples()).items():
        pages.append(asked.directory.absolute() / f"{name}.html")
        pages[-1].write_text(html.render(*reports), encoding="utf-8")
    _photograph(pages)


def _stored(paths: list[Path]) -> dict[str, tuple[Report, ...]]:
    return {path.stem: report.stored(path).reports for path in paths}


def _examples() -> dict[str, tuple[Report, ...]]:
    sys.path[:0] = [str(TESTS), str(TESTS / "reports")]
    runs = runpy.run_path(str(TESTS / "reports" / "run_data.py"))["RUNS"]
    return {name: run.reports for name, run in runs.items() if run.reports}


def _photograph(pages: Iterable[Path]) -> None:
    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False)
        for page in pages:
            for look, options in LOOKS.items():
                tab = browser.new_page(**options)
                tab.goto(page.as_uri())
                tab.evaluate("dispatchEvent(new Event('beforeprint'))")
                tab.screenshot(path=page.with_name(f"{page.stem}-{look}.png"), full_page=True)
                tab.close()
            tab = browser.new_page()
            tab.goto(page.as_uri())
            tab.pdf(path=page.with_suffix(".pdf"), format="A4")
            tab.close()
            print(page)
        browser.close()


if __name__ == "__main__":
    main()
