"""What a push would publish, on a terminal."""

import difflib
from collections.abc import Iterator, Mapping

from rich.console import Group
from rich.text import Text

from gate.plain import visible
from gate.reports.console import rendered
from gate.reports.wording import MAX_MESSAGE_CHARS, count, plain, stored

STYLES = {"+": "green", "-": "red"}


def render(
    repository: str,
    revision: str | None,
    public: bool,
    sizes: Mapping[str, int],
    card: tuple[str, str] | None,
    *,
    color: bool = False,
    width: int = 100,
) -> str:
    """Where to, how visible, every file, and what changes in the card.

    Args:
        repository: `org/name`.
        revision: A branch; None for the main one.
        public: Whether everybody may see it.
        sizes: Bytes of each file.
        card: Before and after; None where it is left alone.
    """
    branch = f" on the branch {plain(revision)}" if revision else ""
    seen = "for everybody to see (--public)" if public else "private"
    total = count(len(sizes), "file")
    lines = [
        Text.assemble(
            ("DRY RUN", "bold yellow"),
            f"  {total}, {stored(sum(sizes.values()))}, would go to {plain(repository)}{branch}, "
            f"{seen}",
        ),
        *(Text(f"{size:>15,}  {plain(name)}") for name, size in sizes.items()),
    ]
    if card is None:
        lines.append(Text("README.md is left alone: --report writes the results into it."))
    else:
        lines += _difference(*card)
    return rendered(Group(*lines), color, width)


def _difference(before: str, after: str) -> Iterator[Text]:
    """The lines of the card that change, with those around them."""
    found = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "README.md", "README.md as published", lineterm=""
    )
    shown = [
        Text(visible(line)[:MAX_MESSAGE_CHARS], style=STYLES.get(line[:1], "")) for line in found
    ]
    yield from shown or [Text("README.md holds these results already.")]
