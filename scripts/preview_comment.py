"""Show comments as a browser does: a page and, where Chromium is installed, pictures of it.

python scripts/preview_comment.py DIRECTORY              the runs of tests/reports/run_data.py
python scripts/preview_comment.py DIRECTORY RUN.json...  runs that the action stored
"""

import argparse
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

from gate import records
from gate.records import GateRun
from gate.reports import comment

TESTS = Path(__file__).parent.parent / "tests"
WIDTHS = (900, 400)
STYLE = """
body { margin: 16px; font: 14px/1.5 "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif }
h2 { margin: 0 0 16px; padding-bottom: .3em; border-bottom: 1px solid #d1d9e0 }
p, ul, table, pre, details, blockquote { margin: 0 0 16px }
table { display: block; width: max-content; max-width: 100%; overflow: auto;
        border-collapse: collapse }
td, th { padding: 6px 13px; border: 1px solid #d1d9e0 }
tr:nth-child(2n), pre { background: #f6f8fa }
pre { padding: 16px; overflow: auto }
code { padding: .2em .4em; font-size: 85%; background: #818b981f; border-radius: 6px;
       white-space: break-spaces }
pre code { padding: 0; background: none }
blockquote { padding-left: 1em; color: #59636e; border-left: .25em solid #d1d9e0 }
"""


def main() -> None:
    """Write one page a run, and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--open", action="store_true", help="show what is folded")
    asked = parser.parse_args()
    asked.directory.mkdir(parents=True, exist_ok=True)
    for name, run in (_stored(asked.runs) if asked.runs else _examples()).items():
        page = asked.directory / f"{name}.html"
        page.write_text(_page(comment.render(run), asked.open), encoding="utf-8")
        _photograph(page)
        print(page)


def _stored(paths: list[Path]) -> dict[str, GateRun]:
    return {path.stem: records.read(path, GateRun) for path in paths}


def _examples() -> dict[str, GateRun]:
    sys.path[:0] = [str(TESTS), str(TESTS / "reports")]
    runs: dict[str, GateRun] = runpy.run_path(str(TESTS / "reports" / "run_data.py"))["RUNS"]
    return runs


def _page(source: str, unfold: bool) -> str:
    """GitHub's style, roughly; its own script for Markdown is not to be had."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(source)
    body = body.replace("<details>", "<details open>") if unfold else body
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}"


def _photograph(page: Path) -> None:
    """One picture a width; Chromium shows what lies below its edge only if the edge is far."""
    browser = shutil.which("chromium")
    for width in WIDTHS if browser else ():
        picture = page.with_name(f"{page.stem}-{width}.png")
        command = [
            str(browser), "--headless", "--no-sandbox", "--hide-scrollbars",
            f"--window-size={width},3000", f"--screenshot={picture}", page.absolute().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, check=True, timeout=120)


if __name__ == "__main__":
    main()
