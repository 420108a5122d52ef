"""The commands that run a model, or look at what running one gave."""

from decimal import Decimal
from itertools import chain
from pathlib import Path

import click

from gate import interrupts, terminal
from gate.cli import output as out
from gate.cli.options import (
    BATCH,
    POLICY,
    PUBLISH_TEXT,
    REMOTE_CODE,
    REPORT,
    RESULT,
    SETTINGS,
    Limit,
    Part,
    policy_of,
    request,
)
from gate.errors import ExitCode


@click.command()
@click.argument("checkpoint")
@SETTINGS
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="The stored result to compare with."
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path, exists=True),
    help="Judge this result of the checkpoint, for example one of gate merge, and run no model.",
)
@click.option("--threshold", type=Limit(), help="Replaces min_retention of every gating metric.")
@click.option("--full", is_flag=True, help="Measure everything even when the verdict is settled.")
@REPORT
@PUBLISH_TEXT
@POLICY
@click.option(
    "--reuse/--fresh",
    default=None,
    help="Keep the verdict, and return a kept one about the same bytes; --fresh judges them anew.",
)
@BATCH
@REMOTE_CODE
@interrupts.handled()
def check(
    checkpoint: str,
    settings: Path | None,
    baseline: Path | None,
    answers: Path | None,
    threshold: Decimal | None,
    full: bool,
    reports: tuple[str, ...],
    publish_text: bool,
    policy_commit: str | None,
    reuse: bool | None,
    batch_size: int | str | None,
    trust_remote_code: bool,
) -> int:
    """Judge a checkpoint: static rules, perplexity, canary, tasks, verdict."""
    from gate import bundle
    from gate import check as gate
    from gate.request import replayed

    outputs = out.parse(reports)
    if baseline is not None and policy_commit is not None:
        raise click.UsageError(
            "--policy-commit takes the baseline from that commit: name it in its settings, not "
            "by --baseline."
        )
    if answers is not None and policy_commit is not None:
        raise click.UsageError("--policy-commit says who answers, too: leave out --answers.")
    with policy_of(policy_commit, settings, threshold) as trusted:
        asked = request(
            checkpoint,
            settings,
            threshold=threshold,
            baseline=baseline,
            full=full,
            batch_size=batch_size,
            trust_remote_code=trust_remote_code,
            publish_text=publish_text,
            store=lambda report: out.write([report], outputs),
            trusted=trusted,
            reuse=reuse,
        )
        if answers is not None:
            asked = replayed(asked, answers)
        # Not one that lies in the checkout of a change.
        bundle.use(asked.root)
        report = gate.check(asked)
    out.show([report])
    return out.worst([report])


@click.command(name="eval")
@click.argument("checkpoint")
@SETTINGS
@RESULT
@click.option(
    "--repeat",
    type=click.IntRange(1, 100),
    default=1,
    metavar="N",
    help="Run the model N times in other batches, and store how far it differs from itself.",
)
@click.option(
    "--shard",
    type=Part(),
    help="Measure every COUNT-th batch only, from the N-th on; gate merge puts all parts together.",
)
@BATCH
@REMOTE_CODE
@interrupts.handled()
def evaluate(
    checkpoint: str,
    settings: Path | None,
    output: Path,
    repeat: int,
    shard: tuple[int, int] | None,
    batch_size: int | str | None,
    trust_remote_code: bool,
) -> int:
    """Measure a checkpoint and store the result, for example as a baseline."""
    from gate import bundle, check, records
    from gate.reports import text
    from gate.request import sharded

    if shard is not None and repeat > 1:
        raise click.UsageError("--repeat compares whole runs: measure it without --shard.")
    asked = request(
        checkpoint,
        settings,
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
        store=lambda result: records.write(output, result),
        arrays=output.parent,
    )
    if shard is not None:
        asked = sharded(asked, *shard)
    bundle.use(asked.root)
    result = check.measure(asked, repeat)
    terminal.say(text.result(result, output, **terminal.style()))
    return ExitCode.PASS


@click.command()
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

    stored, rows = comparing.compare(baseline, results, request("", settings).settings)
    if kind == "markdown":
        terminal.say(markdown.variants(stored, rows))
    else:
        terminal.say(text.variants(stored, rows, **terminal.style()))
    failed = any(found.outcome == "fail" for _, _, comparisons in rows for found in comparisons)
    return ExitCode.FAIL if failed else ExitCode.PASS


@click.command()
@click.argument("checkpoint", required=False)
@SETTINGS
@click.option("--offline", is_flag=True, help="Prove that evaluation needs no network.")
def doctor(checkpoint: str | None, settings: Path | None, offline: bool) -> int:
    """Whether evaluation can run here: versions, devices, data, baseline, memory."""
    from gate import bundle, preflight
    from gate import doctor as doctors
    from gate.offline import refuse_network

    tried = refuse_network() if offline else None
    asked = request(checkpoint or "", settings)
    bundle.use(asked.root)
    checks = (bundle.doctor(asked.root), doctors.doctor(asked), preflight.network(tried))
    broken = False
    for found in chain.from_iterable(checks):
        broken = broken or found.error is not None
        mark = "ok     " if found.error is None else "missing"
        click.echo(f"{mark} {found.name}: {found.error.message if found.error else found.detail}")
        if found.error:
            click.echo(f"        {found.error.hint}")
    return ExitCode.NO_VERDICT if broken else ExitCode.PASS


@click.command()
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path("demo"), show_default=True
)
def demo(directory: Path) -> int:
    """Quantize a small model, measure it, and see one PASS and one FAIL."""
    from gate import demo as show

    return show.run(directory)
