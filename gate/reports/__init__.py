"""The forms in which a report is written, by the name that the user types."""

from collections.abc import Callable

from gate.records import Report
from gate.reports import json, markdown, text

REPORTS: dict[str, Callable[[Report], str]] = {
    "text": text.render,
    "markdown": markdown.render,
    "json": json.render,
}
