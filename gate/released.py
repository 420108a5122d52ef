"""What passed last under the name of a checkpoint, beside what is judged now."""

from typing import NamedTuple

from gate import history, store, verdict
from gate.errors import GateError
from gate.history import Released
from gate.records import Concern, Previous, Report
from gate.request import Request, Subject


class Found(NamedTuple):
    """What passed last, or why that is not known.

    Attributes:
        released: None where nothing did, or no history is kept.
    """

    released: Released | None = None
    problem: GateError | None = None

    def measure(self, request: Request) -> str | None:
        """What of it decides a verdict: its digest, where the settings gate by it."""
        gates = request.settings.max_drop_vs_released is not None
        return self.released.content if self.released and gates else None


def find(request: Request, subject: Subject) -> Found:
    """Look it up in the history of the settings' store, before a model is loaded.

    Raises:
        GateError: It cannot be read, and the settings gate by it.
        BaselineError: The settings gate by it, and it has too few points.
    """
    settings, checkpoint = request.settings, subject.checkpoint
    if settings.store is None or subject.lint.errors:
        return Found()
    name = history.name(checkpoint.source, checkpoint.revision, subject.files, subject.quantized)
    try:
        kept = store.at(settings.store, request.root)
        found = history.released(kept, name, subject.weights_digest)
    except GateError as error:
        if settings.max_drop_vs_released is not None:
            raise
        return Found(problem=error)
    if found is not None and found.report.evaluation is not None:
        verdict.require_points(settings, found.report.evaluation)
    return Found(found)


def compared(report: Report, request: Request, found: Found) -> Report:
    """The report with what has become of the figures of what passed last."""
    result, released = report.evaluation, found.released
    if result is None or released is None or released.report.evaluation is None:
        return report
    last = released.report
    measured = released.report.evaluation
    comparisons, missing = verdict.compare_released(request.settings, measured, result)
    previous = Previous(
        content=released.content,
        revision=last.revision,
        weights_digest=measured.weights_digest,
        date=last.reused_from or last.date,
        run_id=last.reused_run or last.run_id,
        comparisons=comparisons,
        missing=missing,
    )
    return report.model_copy(update={"previous": previous})


def decided(report: Report, request: Request, found: Found) -> Report:
    """The same, failed where the settings allow no such drop, with a word on what is not known."""
    report = compared(report, request, found)
    if report.evaluation is None:
        return report
    made = verdict.with_released(report.verdict, request.settings, report.previous)
    if found.problem is not None:
        concern = Concern(
            kind="history-unreadable",
            message=f"the history cannot be read: {found.problem.message}",
            fix=found.problem.hint,
        )
        made = made.model_copy(update={"concerns": (*made.concerns, concern)})
    return report.model_copy(update={"verdict": made})
