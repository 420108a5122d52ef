"""The named sets of suites on a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from gate.reports.console import headed_table, rendered
from gate.settings import PerplexityText, sets


def table(*, color: bool = False, width: int = 100) -> str:
    """One row a set."""
    listed = headed_table()
    listed.add_column("set", no_wrap=True)
    listed.add_column("what it measures", overflow="fold")
    listed.add_column("tasks and texts", overflow="fold")
    for name in sets.NAMES:
        found = sets.load(name)
        measured = ", ".join(dict.fromkeys(_measured(found)))
        listed.add_row(name, Text(found["description"].rstrip(".")), Text(measured))
    return rendered(listed, color, width)


def _measured(found: Mapping[str, Any]) -> Iterator[str]:
    for suite in found["suites"]:
        for metric in suite["metrics"]:
            if "perplexity" in metric:
                yield PerplexityText.model_validate(metric["perplexity"]).label
            else:
                yield metric["task"]
