"""What was measured beside the metrics, as tables of a page; not yet escaped."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gate.records import Diagnosis, LintResult, Report, Size, SizeBucket
from gate.reports import answers, diagnosis, drifts, evidence, previous, recipe, speed, wording

Pairs = list[tuple[str, str]]

SIZES = ("stored", "parameters", "bits per weight")
LEAST_MEGABYTES = 50_000
"""Bytes below which a tenth of a megabyte is none."""


class Told(NamedTuple):
    """A table, and what its figures mean."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Iterable[str] = ()


class Hurt(NamedTuple):
    """Where a failed candidate is hurt.

    Attributes:
        where: And why.
        help: What to do.
        note: What the figures of the tables mean.
        recipe: Sentences with the lines to write; empty where no set of modules was found.
        effect: What that would change.
    """

    where: str
    help: str
    tables: list[Told]
    note: str
    recipe: Pairs
    effect: str
    facts: Pairs


def measured(report: Report) -> Iterator[Told]:
    """What became of other figures than those of the verdict."""
    result = report.evaluation
    if rows := previous.rows(report):
        yield Told(previous.TITLE, previous.COLUMNS, rows)
    if result is not None and result.drifts:
        yield Told(drifts.TITLE, drifts.COLUMNS, drifts.rows(result), drifts.notes(result))
    if report.instructions:
        rows = [answers.instruction(change) for change in report.instructions]
        about = f"Points in {report.instructions[0].metric}."
        yield Told("Kinds of instruction", answers.INSTRUCTIONS, rows, [about])
    if speeds := speed.rows(result):
        yield Told(speed.TITLE, speed.COLUMNS, speeds, list(speed.notes(result)))


def weights(lint: LintResult) -> Iterator[Told]:
    """How far they are from the reference's."""
    if layers := evidence.layer_rows(lint):
        yield Told("Distance from the reference's weights", evidence.LAYER_COLUMNS, layers)


def sizes(size: Size) -> list[Told]:
    """What each part takes, the largest first."""
    shown = []
    for name, buckets in (("kind of weight", size.by_class), ("data type", size.by_dtype)):
        largest = sorted(buckets.items(), key=lambda item: -item[1].stored_bytes)
        rows = [(kind, *_size(bucket)) for kind, bucket in largest]
        shown.append(Told(f"Size by {name}", (name, *SIZES), rows))
    return shown


def _size(bucket: SizeBucket) -> tuple[str, ...]:
    count = bucket.parameters
    bits = f"{8 * bucket.stored_bytes / count:.2f}" if count else ""
    stored = bucket.stored_bytes
    shown = wording.stored(stored) if stored >= LEAST_MEGABYTES else f"{stored:,} B"
    return shown, wording.large(count) if count else "", bits


def hurt(found: Diagnosis, lint: LintResult) -> Hurt:
    """The sentences, tables and recipe of a diagnosis."""
    where, why, help_ = diagnosis.sentences(found)
    leave = diagnosis.proposed(found)
    return Hurt(
        where=f"{where}. {why}.",
        help=f"{help_}.",
        tables=[Told(*table) for table in diagnosis.tables(found)],
        note=diagnosis.NOTE,
        recipe=recipe.ways(leave, lint) if leave is not None else [],
        effect=diagnosis.effect(leave, found) if leave is not None else "",
        facts=diagnosis.facts(found),
    )
