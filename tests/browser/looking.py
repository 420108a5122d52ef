"""What a reader of a page would complain of: measured in the browser, by its computed styles."""

from pathlib import Path

from playwright.sync_api import Page

SCRIPTS = Path(__file__).parent


def faint(page: Page) -> list[str]:
    """Visible texts whose contrast is less than WCAG's 4.5, or 3 where they are large.

    Source: https://www.w3.org/TR/WCAG22/#contrast-minimum
    """
    return list(page.evaluate((SCRIPTS / "faint.js").read_text(encoding="utf-8")))


def defects(page: Page) -> list[str]:
    """What a screen reader or a keyboard stumbles over, a line each."""
    return list(page.evaluate((SCRIPTS / "defects.js").read_text(encoding="utf-8")))


def unfold(page: Page) -> None:
    """Open everything that is folded."""
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")


def overflow(page: Page) -> int:
    """Pixels by which the page itself is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def show(page: Page, directory: Path, content: str, name: str = "page.html") -> None:
    """Open a page as a file, as its readers do."""
    (directory / name).write_text(content, encoding="utf-8")
    page.goto((directory / name).as_uri())
