"""The files of a dashboard beside its index."""

import re
from bisect import insort
from collections import defaultdict
from operator import attrgetter
from pathlib import Path

from gate.dashboard.rows import DIGITS, Row
from gate.records import Report, write_text
from gate.reports import html

NAME = re.compile(rf"[0-9a-f]{{{DIGITS}}}\.html")


class ReportPages:
    """Pages of the newest reports of each checkpoint, written as they come.

    Args:
        directory: Where they lie.
        most: So many of each checkpoint.

    Attributes:
        names: Digests of the reports that have a page.
    """

    def __init__(self, directory: Path, most: int) -> None:
        self.names: set[str] = set()
        self._directory = directory
        self._most = most
        self._kept: dict[str, list[Row]] = defaultdict(list)

    def add(self, row: Row, report: Report) -> None:
        """Write the page of a report, unless enough others of its checkpoint come before it.

        Raises:
            GateError: The directory cannot be written.
        """
        kept = self._kept[row.checkpoint]
        insort(kept, row, key=attrgetter("standing"))
        self.names.add(row.digest)
        if len(kept) > self._most:
            last = kept.pop(0)
            self.names.remove(last.digest)
            if last is row:
                return
        write_text(
            self._directory / f"{row.digest}.html", html.render(report, home="../index.html")
        )

    def clear(self) -> None:
        """Remove the pages that no longer belong to it; other files stay."""
        for file in self._directory.glob("*.html"):
            if NAME.fullmatch(file.name) and file.stem not in self.names:
                file.unlink(missing_ok=True)
