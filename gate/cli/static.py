"""The commands that need no model: lint, and the manual of its rules."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gate import terminal
from gate.cli import output as out
from gate.cli.options import POLICY, REPORT, SETTINGS, policy_of, request
from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.records import Target


class _Rules(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "RULE[,RULE]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@SETTINGS
@REPORT
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "json", "markdown", "sarif", "github"]),
    default="text",
    show_default=True,
    help="What is printed.",
)
@click.option(
    "--select", type=_Rules(), multiple=True, help="Run only these rules. May be repeated."
)
@click.option("--exit-zero", is_flag=True, help="Exit 0 on a FAIL too.")
@click.option("--headers-only", is_flag=True, help="Leave out the rules that read scales.")
@click.option(
    "--whole", is_flag=True, help="Judge the whole checkpoint to which each named file belongs."
)
@click.option(
    "--reference",
    metavar="ORIGINAL",
    help="The unquantized checkpoint to compare every layer with.",
)
@click.option(
    "--runtime", metavar="NAME", help="The runtime that should load it, for example vllm."
)
@click.option("--gpu", metavar="NAME", help="The GPU on which it should run, for example h100.")
@click.option("--tp", type=click.IntRange(1, 1024), help="GPUs that share every layer.")
@click.option("--memory", metavar="SIZE", help="Memory of all devices together, for example 36GB.")
@click.option("--context", type=click.IntRange(1), help="Tokens of one sequence in the KV cache.")
@click.option("--concurrency", type=click.IntRange(1), help="Sequences at a time.")
@POLICY
def lint(
    checkpoints: tuple[str, ...],
    settings: Path | None,
    reports: tuple[str, ...],
    kind: str,
    select: tuple[tuple[str, ...], ...],
    exit_zero: bool,
    headers_only: bool,
    whole: bool,
    reference: str | None,
    policy_commit: str | None,
    **target: Any,
) -> int:
    """Validate checkpoints statically: no model, no GPU, headers and scales only.

    A CHECKPOINT is a directory, org/name@revision on the hub, or files: those of one directory
    are judged together. A JSON configuration stands for its directory, and the first file of a
    GGUF series for all of it.
    """
    from gate import subjects
    from gate.request import Look

    # A short process that makes a million small values and no cycles: looking for those takes a
    # third of its time.
    gc.disable()
    outputs = out.parse(reports)
    if reference and headers_only:
        raise click.UsageError("--reference reads all weights, --headers-only none: choose one.")
    look = Look(
        select=tuple(name for names in select for name in names),
        headers_only=headers_only,
        reference=reference,
        target=_target(**target),
    )
    with policy_of(policy_commit, settings, files=False) as trusted:
        asked = request("", settings, show_progress=False, trusted=trusted)
        done = subjects.lint(asked, checkpoints, look, whole=whole)
    out.write(done, outputs)
    out.show(done, kind)
    return ExitCode.PASS if exit_zero else out.worst(done)


def _target(
    runtime: str | None,
    gpu: str | None,
    tp: int | None,
    memory: str | None,
    context: int | None,
    concurrency: int | None,
) -> "Target | None":
    """Where the checkpoint should run; None where nothing says it."""
    from gate.records import Target

    if runtime is None and gpu is None and memory is None:
        if tp or context or concurrency:
            raise click.UsageError(
                "--tp, --context and --concurrency say how it should run: name --runtime, --gpu "
                "or --memory too."
            )
        return None
    from gate import fit

    return Target(
        runtime=runtime,
        gpu=gpu,
        tensor_parallel=tp or 1,
        memory_bytes=fit.parse_bytes(memory) if memory else None,
        context=context,
        concurrency=concurrency or 1,
    )


@click.command()
@click.argument("rule")
def explain(rule: str) -> int:
    """The manual page of a rule: what it flags, why, how to repair it, where that is written."""
    from gate.reports import manual
    from gate.rules import RULES

    terminal.say(manual.page(RULES, rule, **terminal.style()))
    return ExitCode.PASS


@click.group(name="list")
def list_tables() -> None:
    """What there is to choose from."""


@list_tables.command()
@click.option("--format", "kind", type=click.Choice(["text", "json"]), default="text")
def rules(kind: str) -> int:
    """Every rule: severity, what it reads, what it finds."""
    from gate.reports import manual
    from gate.rules import RULES

    if kind == "json":
        terminal.say(manual.as_json(RULES))
    else:
        terminal.say(manual.table(RULES, **terminal.style()))
    return ExitCode.PASS


@list_tables.command()
@click.argument("name", required=False)
def suites(name: str | None) -> int:
    """Every named set of suites, or the file of one NAME, to copy from."""
    from gate.reports import suite_sets
    from gate.settings import sets

    if name is not None:
        terminal.say(sets.source(name))
    else:
        terminal.say(suite_sets.table(**terminal.style()))
    return ExitCode.PASS
