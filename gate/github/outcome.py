"""What a run means for the workflow: the step's outputs and its exit code."""

from pathlib import Path

from gate import verdict
from gate.errors import ExitCode
from gate.github.inputs import FailOn, Inputs
from gate.records import GateRun, Report


def outputs(run: GateRun, file: Path) -> dict[str, str]:
    """The outputs of a run that judged, or found nothing to judge.

    Args:
        run: What was done.
        file: Where it is stored.
    """
    lowest = retention(run)
    values = {
        "status": run.status,
        "report-json-path": str(file),
        "retention": "" if lowest is None else f"{lowest:.4f}",
        "waived": "true" if run.waiver is not None else "false",
    }
    if run.detection is not None:
        values["changed-count"] = str(len(run.detection.present))
    return values


def retention(run: GateRun) -> float | None:
    """The lowest share of the baseline's score that a gating metric kept.

    Perplexity is left out, as its ratio is a limit from above, and so is speed, which is no score.
    Of a task that was stopped early the share is not known.
    """
    return min(
        (
            comparison.retention
            for report in run.reports
            for comparison in report.verdict.comparisons
            if comparison.outcome is not None
            and comparison.higher_is_better
            and comparison.early_stop is None
            and comparison.task != verdict.SPEED
        ),
        default=None,
    )


def exit_code(run: GateRun, inputs: Inputs) -> ExitCode:
    """The step's exit code; what a verdict is, no input changes."""
    advisory = run.policy is not None and run.policy.advisory
    asked = {_verdict(report, inputs.fail_on) for report in run.reports} - {ExitCode.PASS}
    if advisory or run.waiver is not None or not asked:
        return _infra(run, inputs)
    return ExitCode.FAIL if ExitCode.FAIL in asked else ExitCode.INCONCLUSIVE


def _verdict(report: Report, fail_on: FailOn) -> ExitCode:
    """What one verdict asks for."""
    verdict = report.verdict
    if verdict.outcome == "pass" or fail_on == "never":
        return ExitCode.PASS
    if fail_on == "invalid":
        invalid = verdict.outcome == "fail" and verdict.stage == "lint"
        return ExitCode.FAIL if invalid else ExitCode.PASS
    return ExitCode.FAIL if verdict.outcome == "fail" else ExitCode.INCONCLUSIVE


def _infra(run: GateRun, inputs: Inputs) -> ExitCode:
    """What checkpoints without a verdict ask for."""
    failed = bool(run.failures) and inputs.on_infra_error == "fail"
    return ExitCode.NO_VERDICT if failed else ExitCode.PASS
