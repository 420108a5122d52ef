"""What a terminal shows beside the report: progress, colour, width."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_WIDTH = 120


def style() -> dict[str, Any]:
    """Colour and width for what goes to standard output."""
    width = shutil.get_terminal_size((100, 24)).columns
    return {
        "color": sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        "width": min(width, MAX_WIDTH),
    }


def say(text: str) -> None:
    """Print, whatever is at the other end: neither its encoding nor its leaving ends a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        print(text, end="", flush=True)  # noqa: T201 (the one place that prints a report)
    except BrokenPipeError:
        # What is left in the buffer must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """One line on standard error about what a run is doing, for whoever reads its log."""
    print(f"gate: {text}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def silent(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress."""
    yield lambda done: None


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, gone when done; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        row = bars.add_task(label, total=total)
        yield lambda done: bars.advance(row, done)


@contextmanager
def output_to_errors() -> Iterator[None]:
    """Whatever this process and those that it starts print goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
