"""Untrusted text as GitHub Markdown.

Names, messages and answers come from checkpoints and models, and anyone may send those. None of
it may become a table row, a link, a mention, a tag or a code block: it is written through these.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from gate.reports import wording
from gate.reports.wording import plain

MAX_COMMAND_CHARS = 4000

# GitHub looks for mentions, issue numbers and addresses in the finished page, where a backslash
# no longer helps; a zero-width space inside them does, and is not seen.
_BREAK = "\N{ZERO WIDTH SPACE}"
_AUTOLINK = re.compile(r"@|#(?=\w)|(?i:GH-)(?=\d)|:(?=//)|(?i:\bwww(?=\.))|(?i:mailto|xmpp):")
_MARKUP = re.compile(r"([\\`*_\[\]~$!{}()])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/?=&%+-]{1,2000}")
_LINE_START = re.compile(r"^([-+=#]|\d+(?=[.)](?:\s|$)))")


def escape(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text as Markdown that shows it on one line, in a paragraph or a table cell."""
    text = _AUTOLINK.sub(lambda match: match[0] + _BREAK, plain(text, limit=limit))
    text = _MARKUP.sub(r"\\\1", text.translate(_ENTITIES))
    return _LINE_START.sub(lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", text)


def escape_lines(text: str, limit: int) -> str:
    """Untrusted text with its line ends, as Markdown in a paragraph or a table cell."""
    text = re.sub(r"\n{3,}", "\n\n", plain(text, lines=True, limit=limit))
    return "<br>".join(escape(line, limit) for line in text.split("\n"))


def escape_tag(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text on one line inside a tag, such as `<summary>`, where no Markdown is read."""
    return html.escape(_AUTOLINK.sub(lambda match: match[0] + _BREAK, plain(text, limit=limit)))


def unbroken(cell: str) -> str:
    """A table cell of numbers, whose words stay on one line."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}")


def fence(text: str, limit: int = MAX_COMMAND_CHARS) -> str:
    """Untrusted text, such as a command, as a code block."""
    text = plain(text, lines=True, limit=limit)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{text}\n{ticks}"


def preformatted(text: str, limit: int) -> str:
    """Untrusted text inside `<pre>`, on one source line: a blank one would end the HTML."""
    text = plain(text, lines=True, limit=limit) or "(empty)"
    text = _AUTOLINK.sub(lambda match: match[0] + _BREAK, text)
    return html.escape(text).replace("\n", "&#10;")


def fold(title: str, inside: Iterable[str]) -> Iterator[str]:
    """Blocks below a line that opens them; the title is untrusted text."""
    yield f"<details><summary>{escape_tag(title)}</summary>"
    yield from inside
    yield "</details>"


def link(text: str, address: str | None) -> str:
    """A link; the text alone where the address is none that could be meant."""
    if address is None or not _ADDRESS.fullmatch(address):
        return escape(text)
    return f"[{escape(text)}]({address})"


def advice(text: str) -> str:
    """What to do; the command at its end as one can copy it, without `escape`'s invisible signs."""
    said, command = wording.advice(plain(text))
    return f"{escape(said)} {code(command)}" if command else escape(text)


def code(text: str, limit: int = wording.MAX_MESSAGE_CHARS) -> str:
    """Untrusted text as an inline code span, in a paragraph or a table cell."""
    text = plain(text, limit=limit)
    if not text:
        return ""
    # A pipe ends a table cell even inside a code span, and no escape works in both places.
    text = text.replace("|", "\N{BOX DRAWINGS LIGHT VERTICAL}")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of numbers; the rows are Markdown already, the header is not."""
    align = [":--", *["--:"] * (len(header) - 1)]
    lines = [[escape(name) for name in header], align, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of figures below the names that they belong to; nothing is escaped yet."""
    return table(header, [[code(row[0]), *map(escape, row[1:])] for row in rows])


def left_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table of texts; header and rows are Markdown already."""
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
