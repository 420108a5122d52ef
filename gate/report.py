"""Stored reports, read back to be shown in another form."""

import json
from pathlib import Path
from typing import NamedTuple

from gate.errors import GateError
from gate.records import GateRun, Report, parse


class Stored(NamedTuple):
    """What a file holds: one report, or those of a run.

    Attributes:
        content: The file's bytes.
        run: None for a single report.
    """

    content: bytes
    reports: tuple[Report, ...]
    run: GateRun | None = None


def stored(path: Path) -> Stored:
    """The reports in a file that `gate check --report json=` or the action wrote.

    Raises:
        GateError: It is missing, unreadable, newer, or holds none.
    """
    again = "Make it: gate check CHECKPOINT --report json=report.json"
    try:
        content = path.read_bytes()
        value = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise GateError(f"{path} cannot be read as a report: {error}", again) from error
    if isinstance(value, dict) and "reports" in value:
        run = parse(value, GateRun, path)
        return Stored(content, run.reports, run)
    return Stored(content, (parse(value, Report, path),))
