"""The job summary: what GitHub shows on the page of a workflow run."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gate.errors import PublishError

MOST_BYTES = 1024 * 1024
"""A step's; GitHub drops the whole summary where it is more."""

LEAST_BYTES = 4096
"""Less is no report."""


def append(render: Callable[[int], str], environ: Mapping[str, str]) -> bool:
    """Append a report to the step's summary; False where there is none to append to.

    Args:
        render: Its Markdown, in at most so many bytes.

    Raises:
        PublishError: The file cannot be written, or is full.
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    path = Path(name)
    try:
        size = path.stat().st_size if path.exists() else 0
        room = MOST_BYTES - size - 2
        if room < LEAST_BYTES:
            raise PublishError(
                f"the step's summary has {size:,} bytes already; GitHub takes {MOST_BYTES:,}",
                "Publish in a step of its own.",
            )
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(("\n" if size else "") + render(room).rstrip("\n") + "\n")
    except OSError as error:
        raise PublishError(
            f"the job summary {name} cannot be written: {error.strerror}",
            "Check the permissions of the runner's working directory.",
        ) from error
    return True
