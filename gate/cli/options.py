"""Options that several commands share, and what the user asked for with them."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gate import terminal

if TYPE_CHECKING:
    from gate.policy import Trusted
    from gate.request import Request

SETTINGS = click.option(
    "--settings",
    type=click.Path(path_type=Path),
    help="Settings file; quant-gate.yaml in this directory if there is one, else the defaults.",
)
RESULT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the result is stored.",
)
REPORT = click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Also write the report: text, markdown, html, json, sarif, junit or github. "
    "May be repeated.",
)
REMOTE_CODE = click.option(
    "--trust-remote-code", is_flag=True, help="Let the checkpoint's own Python code run."
)
PUBLISH_TEXT = click.option(
    "--publish-text",
    is_flag=True,
    help="Show prompts and answers of your own tasks in reports, too.",
)
POLICY = click.option(
    "--policy-commit",
    metavar="COMMIT",
    help="Take settings, baselines and tasks from this commit, for example a pull request's base.",
)


class Limit(click.ParamType[Decimal]):
    """A decimal, kept as it is written."""

    name = "decimal"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal:
        """See `click.ParamType`."""
        try:
            return Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is not a number", param, ctx)


class Part(click.ParamType[tuple[int, int]]):
    """Which of how many, such as 2/4."""

    name = "N/COUNT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """See `click.ParamType`."""
        from gate.records import MOST_SHARDS

        stated = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", str(value))
        index, count = map(int, stated.groups()) if stated else (0, 0)
        if not 1 <= index <= count <= MOST_SHARDS:
            hint = f"write which of how many, for example 2/4, and of at most {MOST_SHARDS}"
            self.fail(f"{value!r}: {hint}", param, ctx)
        return index, count


def _batch_size(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | str | None:
    if value is None or value == "auto":
        return value
    size: int = click.IntRange(1, 4096)(value, option, context)
    return size


BATCH = click.option(
    "--batch-size",
    metavar="NUMBER|auto",
    callback=_batch_size,
    help="Documents run together; auto takes what a GPU has room for, and 8 on a CPU.",
)


def request(
    checkpoint: str,
    settings_file: Path | None,
    *,
    threshold: Decimal | None = None,
    baseline: Path | None = None,
    full: bool = False,
    batch_size: int | str | None = None,
    trust_remote_code: bool = False,
    publish_text: bool = False,
    show_progress: bool = True,
    store: Callable[[Any], None] = lambda record: None,
    trusted: "Trusted | None" = None,
    reuse: bool | None = None,
    arrays: Path | None = None,
) -> "Request":
    """The settings, with what the command line says instead.

    Args:
        trusted: Settings that were taken from a commit; left out, they are read here.
        arrays: Where the arrays of a stored result go; left out, none are stored.
    """
    from gate import settings
    from gate.request import Request

    if trusted is not None:
        loaded, root = trusted.settings, trusted.root
    else:
        loaded, root = settings.load(settings_file, threshold)
        settings.require_trusted_server(loaded)
    changes = {
        "batch_size": batch_size,
        "trust_remote_code": trust_remote_code or None,
        "publish_text": publish_text or None,
    }
    loaded = loaded.model_copy(update={k: v for k, v in changes.items() if v is not None})
    return Request(
        checkpoint=checkpoint,
        settings=loaded,
        root=root,
        command=shlex.join(["gate", *sys.argv[1:]]),
        progress=terminal.progress if show_progress else terminal.silent,
        store=store,
        settings_file=settings_file,
        baseline=baseline,
        full=full,
        trusted=trusted,
        reuse=reuse,
        arrays=arrays,
    )


@contextmanager
def policy_of(
    commit: str | None, settings_file: Path | None, threshold: Decimal | None = None, **more: Any
) -> "Iterator[Trusted | None]":
    """The settings of a commit while they are needed; None where no commit is named."""
    if commit is None:
        yield None
        return
    from gate import policy

    with policy.opened(commit, settings_file, threshold, **more) as trusted:
        yield trusted
