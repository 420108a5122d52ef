"""The command line: parse, call, print, exit. No verb holds logic."""

import shlex
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gate import __version__, terminal
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.records import Report
    from gate.request import Request

EXIT_CODES = """
\b
Exit codes:
  0   PASS
  1   FAIL: judged, and not good enough
  2   command line or settings wrong
  3   could not judge
  4   INCONCLUSIVE, only where the settings ask for it
  130 interrupted
"""


class _Limit(click.ParamType[Decimal]):
    """A decimal, kept as it is written."""

    name = "decimal"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal:
        try:
            return Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is not a number", param, ctx)


SETTINGS = click.option(
    "--settings",
    type=click.Path(path_type=Path),
    help="Settings file; quant-gate.yaml in this directory if there is one, else the defaults.",
)
REPORT = click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Also write the report: json=FILE, markdown=FILE or text=FILE. May be repeated.",
)
REMOTE_CODE = click.option(
    "--trust-remote-code", is_flag=True, help="Let the checkpoint's own Python code run."
)
BATCH = click.option("--batch-size", type=click.IntRange(1, 4096), help="Documents run together.")


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quant-gate")
def cli() -> None:
    """The quality gate for quantized LLM checkpoints."""


@cli.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@SETTINGS
@REPORT
def lint(checkpoints: tuple[str, ...], settings: Path | None, reports: tuple[str, ...]) -> int:
    """Validate checkpoints statically: no model, no GPU, headers and scales only."""
    from gate import check

    outputs = _outputs(reports)
    done = [
        report
        for name in checkpoints
        for report in check.lint(_request(name, settings, show_progress=False))
    ]
    for report in done:
        _write(report, outputs if len(done) == 1 else _numbered(outputs, report))
        _print(report)
    return _worst(done)


@cli.command()
@click.argument("checkpoint")
@SETTINGS
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="The stored result to compare with."
)
@click.option("--threshold", type=_Limit(), help="Replaces min_retention of every gating metric.")
@click.option("--full", is_flag=True, help="Measure everything even when the verdict is settled.")
@REPORT
@BATCH
@REMOTE_CODE
def check(
    checkpoint: str,
    settings: Path | None,
    baseline: Path | None,
    threshold: Decimal | None,
    full: bool,
    reports: tuple[str, ...],
    batch_size: int | None,
    trust_remote_code: bool,
) -> int:
    """Judge a checkpoint: static rules, perplexity, canary, tasks, verdict."""
    from gate import check as gate

    outputs = _outputs(reports)
    request = _request(
        checkpoint,
        settings,
        threshold=threshold,
        baseline=baseline,
        full=full,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        store=lambda report: _write(report, outputs),
    )
    report = gate.check(request)
    _print(report)
    return _worst([report])


@cli.command(name="eval")
@click.argument("checkpoint")
@SETTINGS
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the result is stored.",
)
@BATCH
@REMOTE_CODE
def evaluate(
    checkpoint: str,
    settings: Path | None,
    output: Path,
    batch_size: int | None,
    trust_remote_code: bool,
) -> int:
    """Measure a checkpoint and store the result, for example as a baseline."""
    from gate import check, records
    from gate.reports import text

    request = _request(
        checkpoint,
        settings,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        store=lambda result: records.write(output, result),
    )
    result = check.measure(request)
    terminal.say(text.result(result, output, **terminal.style()))
    return ExitCode.PASS


@cli.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@SETTINGS
@click.option("--format", "kind", type=click.Choice(["text", "markdown"]), default="text")
def compare(baseline: Path, results: tuple[Path, ...], settings: Path | None, kind: str) -> int:
    """One row a variant: size, bits per weight, perplexity, every metric and what is retained.

    RESULTS are files written by `gate eval` or by `--report json=FILE`.
    """
    from gate import compare as comparing
    from gate.reports import markdown, text

    stored, rows = comparing.compare(baseline, results, _request("", settings).settings)
    if kind == "markdown":
        terminal.say(markdown.variants(stored, rows))
    else:
        terminal.say(text.variants(stored, rows, **terminal.style()))
    failed = any(found.outcome == "fail" for _, _, comparisons in rows for found in comparisons)
    return ExitCode.FAIL if failed else ExitCode.PASS


@cli.command()
@click.argument("checkpoint", required=False)
@SETTINGS
def doctor(checkpoint: str | None, settings: Path | None) -> int:
    """Whether evaluation can run here: versions, devices, data, baseline, memory."""
    from gate import check

    broken = False
    for found in check.doctor(_request(checkpoint or "", settings)):
        broken = broken or found.error is not None
        mark = "ok     " if found.error is None else "missing"
        click.echo(f"{mark} {found.name}: {found.error.message if found.error else found.detail}")
        if found.error:
            click.echo(f"        {found.error.hint}")
    return ExitCode.NO_VERDICT if broken else ExitCode.PASS


@cli.command()
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path("demo"), show_default=True
)
def demo(directory: Path) -> int:
    """Quantize a small model, measure it, and see one PASS and one FAIL."""
    from gate import demo as show

    return show.run(directory)


def _request(
    checkpoint: str,
    settings_file: Path | None,
    *,
    threshold: Decimal | None = None,
    baseline: Path | None = None,
    full: bool = False,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
    show_progress: bool = True,
    store: Callable[[Any], None] = lambda record: None,
) -> "Request":
    from gate import settings
    from gate.request import Request

    loaded, root = settings.load(settings_file, threshold)
    changes = {"batch_size": batch_size, "trust_remote_code": trust_remote_code or None}
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
    )


def _outputs(reports: tuple[str, ...]) -> list[tuple[str, Path]]:
    from gate.reports import REPORTS

    outputs = []
    for item in reports:
        kind, separator, file = item.partition("=")
        if not separator or not file or kind not in REPORTS:
            raise click.BadParameter(
                f"{item!r}: write FORMAT=FILE with one of {', '.join(REPORTS)}",
                param_hint="--report",
            )
        outputs.append((kind, Path(file)))
    return outputs


def _numbered(outputs: list[tuple[str, Path]], report: "Report") -> list[tuple[str, Path]]:
    """One file a checkpoint where several were judged: its name goes before the ending."""
    name = Path(report.checkpoint).name
    return [(kind, path.with_stem(f"{path.stem}-{name}")) for kind, path in outputs]


def _write(report: "Report", outputs: list[tuple[str, Path]]) -> None:
    """Files before the terminal: a closed pipe must not lose them."""
    from gate import records
    from gate.reports import REPORTS

    for kind, path in outputs:
        records.write_text(path, REPORTS[kind](report))


def _print(report: "Report") -> None:
    from gate.reports import text

    terminal.say(text.render(report, **terminal.style()))


def _worst(reports: list["Report"]) -> int:
    codes = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "inconclusive": ExitCode.INCONCLUSIVE}
    outcomes = {codes[report.verdict.outcome] for report in reports}
    # A FAIL outweighs an INCONCLUSIVE.
    return ExitCode.FAIL if ExitCode.FAIL in outcomes else max(outcomes)
