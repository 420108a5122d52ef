"""A run that a fork computed, made again from its numbers.

The author of the change controls every byte of it. Numbers within sane bounds, words from fixed
lists, and names of a plain alphabet are kept; sentences are ours, and what is decided follows from
the numbers. What else the run says, answers and prompts first of all, is dropped.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from gate import __version__, records, verdict
from gate.github import figures
from gate.records import (
    ChangedCheckpoint,
    Detection,
    Failure,
    Finding,
    GateRun,
    LintResult,
    Report,
    RuleInfo,
    Verdict,
)
from gate.rule import Rule, sections, summary
from gate.rules import RULES
from gate.settings import AT_LOAD

FORMAT = re.compile(r"[a-z0-9_-]{1,40}", re.ASCII)
MOST = 500
"""Checkpoints; of each, findings and metrics."""

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a run comes from, as GitHub's API tells it."""

    repository: str
    key: str
    run_id: int
    run_attempt: int
    run_url: str | None
    head_sha: str
    base_sha: str | None
    pull_request: int | None


def remake(run: GateRun, origin: Origin) -> GateRun:
    """The run with nothing in it that its author could have written freely."""
    detection = None
    if run.detection is not None:
        detection = Detection(
            base=origin.base_sha,
            head=origin.head_sha,
            source="the fork's own run",
            checkpoints=tuple(
                ChangedCheckpoint(path=path, change=changed.change)
                for changed, path in _named(run.detection.checkpoints, lambda each: each.path)
            ),
        )
    failures = tuple(
        _failure(checkpoint, "the fork's run could not judge it")
        for _, checkpoint in _named(run.failures, lambda each: each.checkpoint)
    )
    reports = tuple(
        _report(each, name) for each, name in _named(run.reports, lambda each: each.checkpoint)
    )
    return empty(origin).model_copy(
        update={"detection": detection, "reports": reports, "failures": failures}
    )


def failed(origin: Origin, message: str) -> GateRun:
    """A run that says nothing but why the fork's cannot be shown."""
    return empty(origin).model_copy(update={"failures": (_failure("all checkpoints", message),)})


def empty(origin: Origin) -> GateRun:
    """A run from there in which nothing was judged."""
    return GateRun(
        gate_version=__version__,
        key=origin.key,
        repository=origin.repository,
        event="pull_request",
        run_id=origin.run_id,
        run_attempt=origin.run_attempt,
        run_url=origin.run_url,
        head_sha=origin.head_sha,
        pull_request=origin.pull_request,
        date=records.now(),
    )


def _failure(checkpoint: str, message: str) -> Failure:
    return Failure(
        checkpoint=checkpoint, exit_code=3, message=message, hint="Read the log of the fork's run."
    )


def _named(items: Iterable[T], name: Callable[[T], str]) -> list[tuple[T, str]]:
    """The first so many, each with its name, or a number where that is no plain one."""
    shown = []
    for number, item in enumerate(list(items)[:MOST], 1):
        shown.append((item, figures.name(name(item)) or f"checkpoint {number}"))
    return shown


def _report(report: Report, name: str) -> Report:
    found = _lint(report.lint)
    return Report(
        gate_version=__version__,
        checkpoint=name,
        revision=None,
        files=tuple(file for file in report.files[:MOST] if figures.name(file)),
        runtime_quantization=report.runtime_quantization
        if report.runtime_quantization in AT_LOAD
        else None,
        command=f"gate check {name}",
        settings={},
        lint=found,
        size=figures.size(report.size) if report.size is not None else None,
        evaluation=None,
        baseline=None,
        verdict=_verdict(report.verdict, found),
        flips=tuple(map(figures.flip, report.flips[:10])),
        instructions=tuple(map(figures.instruction, report.instructions[:MOST])),
        # Never its own: a waiver counts for what was judged before it.
        date=records.now(),
        duration_s=max(0.0, figures.maybe(report.duration_s) or 0.0),
    )


def _lint(result: LintResult) -> LintResult:
    rules = {rule.id: rule for rule in RULES}
    return LintResult(
        format=result.format if result.format and FORMAT.fullmatch(result.format) else None,
        algorithms=tuple(name for name in result.algorithms[:20] if figures.name(name)),
        findings=tuple(_finding(each, rules.get(each.rule)) for each in result.findings[:MOST]),
        rules_run=tuple(
            RuleInfo(id=each.id, severity=each.severity, summary=summary(rules[each.id]))
            for each in result.rules_run[:MOST]
            if each.id in rules
        ),
    )


def _finding(finding: Finding, rule: Rule | None) -> Finding:
    """What the rule's manual says in place of what the finding says."""
    unknown = "Use one version of quant-gate in both workflows."
    return Finding(
        rule=rule.id if rule else "unknown-rule",
        severity=finding.severity,
        message=summary(rule) if rule else "A rule that this version does not know.",
        fix=sections(rule)["Repair"] if rule else unknown,
        tensor=figures.name(finding.tensor or ""),
        file=figures.name(finding.file or ""),
        ignored=None if finding.ignored is None else "by the settings",
        count=figures.count(finding.count),
    )


def _verdict(claimed: Verdict, lint: LintResult) -> Verdict:
    """What follows from the numbers; the worse of both, where the run says otherwise."""
    comparisons = tuple(map(figures.comparison, claimed.comparisons[:MOST]))
    made = verdict.decide(lint, comparisons)
    if figures.RANK[claimed.outcome] <= figures.RANK[made.outcome]:
        return made
    reason = "its reason is not repeated here"
    if claimed.stage == "canary":
        answers = len(claimed.canary)
        reason = f"the model degenerates on {answers} prompt{'' if answers == 1 else 's'}"
    return made.model_copy(
        update={
            "outcome": claimed.outcome,
            "reasons": (f"the fork's run says {claimed.outcome.upper()}: {reason}", *made.reasons),
            "fix": "Read the log of the fork's run.",
            "stage": claimed.stage,
        }
    )
