"""One report as its page shows it: sentences and cells in order, not yet escaped."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from gate.records import CanaryAnswer, EvalResult, Finding, Flip, Report
from gate.reports import answers, evidence, findings, metrics, section, tables, wording
from gate.reports.differing import Piece, sides
from gate.reports.intervals import Interval, interval
from gate.reports.tables import Hurt, Told
from gate.reports.wording import plain

MAX_TEXT_CHARS = 4000
MOST_REASONS = 50
MOST_FILES = 200

Pairs = list[tuple[str, str]]


class Metric(NamedTuple):
    """One metric against its limit; `kind` is how its verdict is drawn."""

    name: str
    kind: str
    verdict: str
    baseline: str
    candidate: str
    retained: str
    drawing: Interval | None
    limit: str
    range: str
    used: str


class Document(NamedTuple):
    """A document on which both models differ.

    Attributes:
        what: What became of it: "lost", "gained", or what is wrong with the answer.
        sides: Name and text of both answers; empty where they are private or were not kept.
    """

    name: str
    what: str
    parts: tuple[str, ...]
    prompt: str | None
    sides: tuple[tuple[str, list[Piece]], ...]


class Place(NamedTuple):
    """A finding, and where it is."""

    severity: str
    where: list[str]
    rule: str
    message: str
    fix: str


class View(NamedTuple):
    """A report in the order in which it is read.

    Attributes:
        fix: What to do, and the command that does it; either may be empty.
        concerns: What a reader should know beside the verdict.
        others: Reasons beside the first.
        notes: What the metrics say together.
        hurt: None where it was not diagnosed.
        measured: What else was measured.
        weights: What is known of the weights.
        sizes: What they take.
        lint: The findings in one sentence.
        set_aside: What was ignored or skipped, and why.
        facts: How it was judged.
        digests: What tells this run from any other.
        settings: As used, defaults filled in, as JSON; without what they leave open.
    """

    name: str
    outcome: str
    word: str
    reason: str
    fix: tuple[str, str]
    size: tuple[str, str]
    concerns: list[str]
    others: tuple[str, ...]
    suites: list[tuple[str, ...]]
    metrics: list[Metric]
    notes: list[str]
    hurt: Hurt | None
    measured: list[Told]
    weights: list[Told]
    sizes: list[Told]
    canary: list[Document]
    flips: list[Document]
    flips_title: str
    lint: str
    places: list[Place]
    set_aside: Pairs
    facts: Pairs
    digests: Pairs
    settings: str
    command: str


def view(report: Report) -> View:
    """Everything that the page shows of one checkpoint."""
    verdict, lint = report.verdict, report.lint
    smaller = report.size.compression if report.size else None
    return View(
        name=plain(wording.name(report)),
        outcome=verdict.outcome,
        word=_word(report),
        reason=plain(section.reason(report)),
        fix=wording.advice(verdict.fix or ""),
        size=(
            wording.stored(report.size.stored_bytes) if report.size else "",
            f"{smaller:.2f}×" if smaller else "",
        ),
        concerns=wording.concerns(verdict),
        # Those of lint are its findings.
        others=verdict.reasons[1:MOST_REASONS] if verdict.stage != "lint" else (),
        suites=metrics.suites(verdict),
        metrics=_metrics(report),
        notes=_notes(report),
        hurt=tables.hurt(report.diagnosis, lint) if report.diagnosis is not None else None,
        measured=list(tables.measured(report)),
        weights=list(tables.weights(lint)),
        sizes=tables.sizes(report.size) if report.size is not None else [],
        canary=[_document(c, c.defect, ()) for c in verdict.canary[: wording.MAX_CANARY]],
        flips=[_document(f, "gained" if f.gained else "lost", f.parts) for f in report.flips],
        flips_title=answers.flips_title(report),
        lint=findings.summary(lint),
        places=[_place(report, finding) for finding in findings.listed(lint)],
        set_aside=_set_aside(report),
        facts=[*evidence.facts(lint), *wording.facts(report)],
        digests=[(name, digest) for name, digest in _digests(report) if digest],
        settings=json.dumps(_stated(report.settings), indent=2, ensure_ascii=False),
        command=report.command,
    )


def _word(report: Report) -> str:
    close = " (borderline)" if section.borderline(report) else ""
    advisory = ", advisory" if report.policy is not None and report.policy.advisory else ""
    return f"{wording.verdict_word(report)}{close}{advisory}"


def _metrics(report: Report) -> list[Metric]:
    shown = []
    for comparison in report.verdict.comparisons:
        name, base, ours, retained, spread, limit, outcome = metrics.cells(comparison)
        kind, drawing = comparison.outcome or "advisory", interval(comparison)
        spread, used = spread.replace(" - ", " to "), section.budget_used(comparison)
        cells = (base, ours, retained, drawing, limit, spread, used)
        shown.append(Metric(name, kind, outcome, *cells))
    return shown


def _notes(report: Report) -> list[str]:
    comparisons = report.verdict.comparisons
    notes = [*section.certainty(comparisons), *metrics.marks(comparisons)]
    notes += [f"Error budget, {said}" for said in metrics.budget_sentences(comparisons)]
    if report.evaluation is None and not comparisons and report.verdict.outcome != "fail":
        notes.append("Static validation only: its quality was not measured.")
    return notes


def _document(shown: Flip | CanaryAnswer, what: str, parts: tuple[str, ...]) -> Document:
    both: tuple[tuple[str, list[Piece]], ...] = ()
    if shown.baseline is not None and shown.candidate is not None:
        pieces = sides(shown.baseline, shown.candidate)
        both = tuple(zip(("baseline", "candidate"), pieces, strict=True))
    prompt = shown.prompt
    if prompt is not None:
        # What is asked stands at its end.
        prompt = plain(prompt[-MAX_TEXT_CHARS:], lines=True, limit=MAX_TEXT_CHARS)
    return Document(f"{shown.task} document {shown.doc_id}", what, parts, prompt, both)


def _place(report: Report, finding: Finding) -> Place:
    where = [plain(findings.path(report, finding)), *map(plain, findings.details(finding))]
    said = map(plain, (finding.rule, finding.message, finding.fix))
    return Place(finding.severity, where, *said)


def _set_aside(report: Report) -> Pairs:
    ignored = [
        ("Ignored", f"{found.rule}: {found.message} (because: {found.ignored})")
        for found in findings.ignored(report.lint)
    ]
    return ignored + [("Skipped", sentence) for sentence in findings.skipped(report.lint)]


def _digests(report: Report) -> Iterator[tuple[str, str]]:
    if report.evaluation is not None:
        yield from _evaluated(report.evaluation)
    if report.baseline is not None:
        yield "Baseline's weights", report.baseline.weights_digest
        yield "Baseline's fingerprint", report.baseline.fingerprint or ""
    yield "Settings, baselines and tasks", report.policy_digest or ""
    yield from sorted(report.digests.items())[:MOST_FILES]


def _evaluated(result: EvalResult) -> Iterator[tuple[str, str]]:
    yield "Weights", result.weights_digest
    yield "Configuration", result.config_digest
    yield "Tokenizer", result.tokenizer_digest
    yield "Chat template", result.chat_template_sha or ""
    for setup in result.setups:
        yield f"Task {setup.task}", setup.task_hash


def _stated(value: Any) -> Any:
    """Settings without those that say nothing."""
    if isinstance(value, dict):
        return {name: _stated(each) for name, each in value.items() if each is not None}
    return [_stated(each) for each in value] if isinstance(value, list) else value
