"""What a report says about answers, beside the verdict."""

from collections.abc import Iterator

from gate.answers import changes, prompts
from gate.answers.changes import Pairs
from gate.answers.counting import beside
from gate.records import AnswerStats, Concern, EvalResult, Report


def explained(report: Report, stored: EvalResult) -> Report:
    """The report with the baseline's counts and every concern; as it is without an evaluation.

    Args:
        report: Of a candidate that was compared with `stored`.
        stored: The baseline.
    """
    result, info = report.evaluation, report.baseline
    if result is None or info is None:
        return report
    theirs = beside(stored, result)
    told = tuple(_concerns(stored, result, theirs))
    known = report.verdict.concerns
    return report.model_copy(
        update={
            "baseline": info.model_copy(update={"answer_stats": theirs}),
            "verdict": report.verdict.model_copy(update={"concerns": (*known, *told)}),
        }
    )


def _concerns(
    stored: EvalResult, result: EvalResult, theirs: tuple[AnswerStats, ...]
) -> Iterator[Concern]:
    yield from prompts.concerns(result.prompting, stored.prompting, result.setups)
    for setup in result.setups:
        yield from changes.lost(setup, result.answer_stats, "the candidate")
        yield from changes.lost(setup, theirs, "the baseline")
        pairs = Pairs.of(setup, stored, result)
        if pairs.after:
            yield from changes.concerns(pairs)
