"""Lint a local checkpoint as the command does, without the command."""

from pathlib import Path
from typing import Any

from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.lint import lint, walk
from gate.quantization import identify
from gate.records import LintResult
from gate.rule import Evidence
from gate.rules import RULES


def gather(path: Path, **more: Any) -> Evidence:
    """What the rules look at; `more` is what `Evidence` takes beside the checkpoint."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    form = identify(checkpoint, FORMATS)
    return Evidence(checkpoint, form, walk(checkpoint, form), **more)


def judge(path: Path, ignore: dict[str, str] | None = None, **options: Any) -> LintResult:
    """Every rule over a directory; `options` are those of `lint`."""
    return lint(gather(path), RULES, ignore or {}, **options)


def flagged(path: Path) -> set[str]:
    """The rules that find something."""
    return {finding.rule for finding in judge(path).findings}


def errors(path: Path) -> set[str]:
    """The rules that find an error."""
    return {finding.rule for finding in judge(path).errors}
