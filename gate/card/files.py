"""The files that a push writes: the card with its results, and the report in two forms."""

import re
from pathlib import Path

from gate.card import metadata, results
from gate.errors import CardError
from gate.records import Report
from gate.reports import json, markdown

CARD = "README.md"
MAX_BYTES = 2 * 2**20
"""Of a card, which is read whole."""

BEGIN, END = "<!-- quant-gate: begin -->", "<!-- quant-gate: end -->"

_FRONT = re.compile(r"\s*---[ \t]*\r?\n(?P<yaml>(?:.*?\n)??)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_SECTION = re.compile(f"{BEGIN}(?:(?!{BEGIN}|{END}).)*{END}", re.DOTALL)


def published(report: Report, checkpoint: Path) -> dict[str, bytes]:
    """Every file that a push writes beside those that were judged, or instead of them.

    Args:
        report: About the checkpoint.
        checkpoint: Its directory, with a README.md or without.

    Raises:
        CardError: The card cannot be read, or not be added to.
    """
    try:
        with (checkpoint / CARD).open("rb") as file:
            card = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        card = b""
    except OSError as error:
        raise CardError(f"{CARD} cannot be read: {error}", "Check the file.") from error
    return {
        CARD: with_results(card, report),
        results.REPORT_JSON: json.render(report).encode(),
        results.REPORT_MARKDOWN: markdown.render(report).encode(),
    }


def is_ours(card: bytes) -> bool:
    """Whether nobody but a push wrote a card: nothing is lost where it is replaced."""
    known, body = _divided(card.decode("utf-8", "replace"))
    begin, end = _place(body)
    if (body[:begin] + body[end:]).strip():
        return False
    try:
        return metadata.parsed(known).keys() <= set(results.KEYS)
    except CardError:
        return False


def with_results(card: bytes, report: Report) -> bytes:
    """A card with the results in its metadata and in a section of their own.

    Raises:
        CardError: It cannot be read, or not be added to.
    """
    if len(card) > MAX_BYTES:
        raise CardError(f"{CARD} is larger than {MAX_BYTES // 2**20} MiB", "Shorten it.")
    try:
        text = card.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"{CARD} is not UTF-8: {error}", "Save it as UTF-8.") from error
    newline = "\r\n" if "\r\n" in text else "\n"
    known, body = _divided(text)
    known = metadata.edited(known, lambda before: results.changes(before, report), newline)
    return f"---{newline}{known}---{newline}{_with_section(body, report, newline)}".encode()


def _divided(text: str) -> tuple[str, str]:
    """The metadata, and the text below it."""
    front = _FRONT.match(text)
    return (front["yaml"], text[front.end() :]) if front else ("", text)


def _with_section(body: str, report: Report, newline: str) -> str:
    """The text with our section in its old place, else at the end."""
    # A name inside a code span is shown as it is: it must not end the section.
    inside = "\n".join(results.section(report)).replace("<!--", "<! --")
    section = f"{BEGIN}\n{inside}\n{END}".replace("\n", newline)
    begin, end = _place(body)
    if begin < end:
        return body[:begin] + section + body[end:]
    above = body.rstrip() + 2 * newline if body.strip() else newline
    return above + section + newline


def _place(body: str) -> tuple[int, int]:
    """Where our section begins and ends; both the end of the text where there is none."""
    place = len(body), len(body)
    for found in _SECTION.finditer(body):
        place = found.span()
    return place
