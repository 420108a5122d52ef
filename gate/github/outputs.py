"""What the action tells the workflow: outputs, and lines of its log that the runner reads.

Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from gate.errors import GateError

MOST_BYTES = 900_000
"""Of all outputs as UTF-16; GitHub refuses a job with more than 1 MB of them."""


def write(file: str | None, values: Mapping[str, str]) -> None:
    """Append outputs to GITHUB_OUTPUT; nothing where there is no such file.

    Raises:
        GateError: They are more than GitHub takes, or the file cannot be written.
    """
    if not file:
        return
    size = sum(len(text.encode("utf-16-le")) for text in (*values, *values.values()))
    if size > MOST_BYTES:
        raise GateError(
            f"the outputs take {size:,} bytes; GitHub takes 1 MB",
            "Limit detection with the input paths.",
        )
    try:
        with Path(file).open("a", encoding="utf-8", errors="backslashreplace") as out:
            out.writelines(heredocs(values))
    except OSError as error:
        raise GateError(
            f"GITHUB_OUTPUT cannot be written: {error}",
            "In a container job, run as the runner's user: options: --user.",
        ) from error


def heredocs(values: Mapping[str, str]) -> Iterator[str]:
    """Outputs as the runner reads them, one at a time."""
    # A value that holds the delimiter could set other outputs, so it cannot be guessed.
    delimiter = f"quant-gate-{secrets.token_hex(16)}"
    for name, text in values.items():
        yield f"{name}<<{delimiter}\n{text}\n{delimiter}\n"


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """A folded part of the log, in which no line is taken for a workflow command."""
    token = secrets.token_hex(16)
    click.echo(f"::group::{escaped(title)}\n::stop-commands::{token}")
    try:
        yield
    finally:
        click.echo(f"\n::{token}::\n::endgroup::")


def say(level: str, message: str) -> None:
    """An annotation: `error`, `warning` or `notice`."""
    click.echo(f"::{level} title=quant-gate::{escaped(message)}")


def mask(secret: str) -> None:
    """Have the runner hide what it shows of a secret."""
    click.echo(f"::add-mask::{escaped(secret)}")


def escaped(text: str) -> str:
    """Text as the data of a workflow command."""
    clean = "".join(c for c in text if c.isprintable() or c in "\n\t")
    return clean.replace("%", "%25").replace("\n", "%0A")


def plain(text: str) -> str:
    """Text as a line of the log that the runner takes for no command."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.replace("##[", "# #[").replace("::", ": :")
