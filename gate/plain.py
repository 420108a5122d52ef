"""Untrusted text without what a terminal, a page or a reader would take for more than text."""

import re
import unicodedata

MAX_MESSAGE_CHARS = 600

# Terminal commands: CSI, OSC with its text, and two-byte escapes.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")


def plain(text: str, *, lines: bool = False, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Untrusted text without terminal commands, control, zero-width and bidi characters.

    Args:
        lines: Keep line ends; otherwise every run of white space becomes one space.
        limit: Characters that are kept.
    """
    clean = visible(text)
    clean = clean.strip("\n") if lines else " ".join(clean.split())
    return clean if len(clean) <= limit else f"{clean[:limit]}…"


def visible(text: str) -> str:
    """The same with every line end and space, and however long: of a text in pieces."""
    if text.isprintable():
        return text
    kept = []
    for char in _ANSI.sub("", text.replace("\r\n", "\n")):
        category = unicodedata.category(char)
        if char == "\n":
            kept.append(char)
        elif char.isspace() or category in {"Zl", "Zp"}:
            kept.append(" ")
        elif category not in {"Cc", "Cf", "Cs", "Cn", "Co"}:
            kept.append(char)
    return "".join(kept)
