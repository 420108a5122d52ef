"""The forms in which reports are written, by the name that the user types."""

from typing import Protocol

from gate.records import Report
from gate.reports import github, html, json, junit, markdown, sarif, text


class Render(Protocol):
    """Writes the reports of one run, in the order in which the checkpoints were named."""

    def __call__(self, *reports: Report) -> str:
        """The whole output, ending in a line end unless it is empty."""
        ...


REPORTS: dict[str, Render] = {
    "text": text.render,
    "markdown": markdown.render,
    "html": html.render,
    "json": json.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "github": github.render,
}

ONE_EACH = frozenset({"json"})
"""Stored with one checkpoint a file, so that each can be read back."""
