"""What a sticky comment says of itself, hidden in its first lines: whose it is, and what it showed.

The first line is an HTML comment that names the gate, the run and the commit; the second lists the
verdicts so far, the current one last. Both are read back strictly: a line that this file would not
write says nothing.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from gate.reports.markdown import ICONS

MOST_VERDICTS = 11
"""Kept: the current one and ten earlier ones."""

VERDICTS = ("pass", "fail", "waived", "inconclusive", "skipped", "error")

_MARKER = re.compile(
    r"<!-- quant-gate:v1 key=(?P<key>[A-Za-z0-9._~%]{1,600}) run=(?P<run>\d{1,18})"
    r" attempt=(?P<attempt>\d{1,9}) sha=(?P<sha>[0-9a-f]{40}|[0-9a-f]{64})"
    r" digest=(?P<digest>[0-9a-f]{32}) -->",
    re.ASCII,
)
_LEDGER = re.compile(rf"<!-- quant-gate:verdicts((?: [^\s<>]{{1,160}}){{1,{MOST_VERDICTS}}}) -->")
_SHOWN = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ),(?P<sha>[0-9a-f]{40}|[0-9a-f]{64}),"
    rf"(?P<verdict>{'|'.join(VERDICTS)}),(?P<run>\d{{1,18}}),(?P<attempt>\d{{1,9}})",
    re.ASCII,
)


class Marker(NamedTuple):
    """The first line of a sticky comment.

    Attributes:
        key: Tells this gate from others on the same pull request.
        run, attempt: The workflow run whose verdict it shows; 0 outside of one.
        sha: The commit that was judged.
        digest: Of the text below, without the earlier verdicts.
    """

    key: str
    run: int
    attempt: int
    sha: str
    digest: str

    @property
    def order(self) -> tuple[int, int]:
        """Larger for newer runs."""
        return self.run, self.attempt


class Shown(NamedTuple):
    """A verdict that the comment shows, or showed; `date` in UTC, to the second."""

    date: str
    sha: str
    verdict: str
    run: int
    attempt: int


class Note(NamedTuple):
    """All that a comment says of itself."""

    marker: Marker
    verdicts: tuple[Shown, ...]


def write(note: Note) -> str:
    """The hidden lines, without a line end after the last one."""
    # Percent-encoding leaves dashes and dots: with the dashes gone no key can end the HTML comment.
    key = quote(note.marker.key, safe="").replace("-", "%2D")
    _, run, attempt, sha, digest = note.marker
    first = (
        f"<!-- quant-gate:v1 key={key} run={run} attempt={attempt} sha={sha} digest={digest} -->"
    )
    if not note.verdicts:
        return first
    ledger = " ".join(",".join(map(str, shown)) for shown in note.verdicts[-MOST_VERDICTS:])
    return f"{first}\n<!-- quant-gate:verdicts {ledger} -->"


def read(body: str) -> Note | None:
    """What a comment says of itself; None where its first line is not a marker of ours."""
    first, second = [*body[:4000].splitlines()[:2], "", ""][:2]
    found = _MARKER.fullmatch(first)
    if found is None:
        return None
    try:
        key = unquote(found["key"], errors="strict")
    except UnicodeDecodeError:
        return None
    run, attempt = int(found["run"]), int(found["attempt"])
    marker = Marker(key, run, attempt, found["sha"], found["digest"])
    if write(Note(marker, ())) != first:
        return None
    return Note(marker, _verdicts(second))


def _verdicts(line: str) -> tuple[Shown, ...]:
    """The second line's; none at all where one of them cannot be read."""
    ledger = _LEDGER.fullmatch(line)
    found = [_SHOWN.fullmatch(entry) for entry in ledger[1].split()] if ledger else []
    verdicts = tuple(
        Shown(each["date"], each["sha"], each["verdict"], int(each["run"]), int(each["attempt"]))
        for each in found
        if each is not None
    )
    return verdicts if len(verdicts) == len(found) else ()


def moment(date: str) -> str:
    """A record's date as it is written here; now, where it is none."""
    try:
        then = datetime.fromisoformat(date).astimezone(UTC)
    except (ValueError, OverflowError):
        then = datetime.now(UTC)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def earlier(verdicts: Sequence[Shown], runs_url: str) -> str:
    """Markdown of the verdicts before the current one, folded, the newest first; "" for none.

    Args:
        runs_url: Address to which a run's id is appended.
    """
    past = list(reversed(verdicts[:-1]))
    if not past:
        return ""
    rows = [
        f"| {shown.date[:16].replace('T', ' ')} | `{shown.sha[:7]}` | {_word(shown.verdict)} "
        f"| {_run_link(shown, runs_url)} |"
        for shown in past
    ]
    table = "\n".join(["| when (UTC) | commit | verdict | run |", "|:--|:--|:--|:--|", *rows])
    title = "Earlier verdict" if len(past) == 1 else f"Earlier verdicts ({len(past)})"
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"


def _word(verdict: str) -> str:
    if verdict == "waived":
        return "⚠️ FAIL, waived"
    return f"{ICONS[verdict]} {verdict.upper()}"


def _run_link(shown: Shown, runs_url: str) -> str:
    if not shown.run:
        return ""
    attempt = f"/attempts/{shown.attempt}" if shown.attempt > 1 else ""
    return f"[{shown.run}]({runs_url}/{shown.run}{attempt})"
