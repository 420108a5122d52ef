"""The commit status: one word and one line that a ruleset can require."""

from typing import Literal, NamedTuple

from gate.records import GateRun
from gate.reports import wording

MOST_DESCRIPTION = 140
"""Characters that GitHub takes."""

State = Literal["pending", "success", "failure", "error"]

STATES: dict[str, State] = {
    "pass": "success",
    "fail": "failure",
    "inconclusive": "failure",
    "skipped": "success",
    "error": "error",
}


class CommitStatus(NamedTuple):
    """What is set on a commit; `description` has at most `MOST_DESCRIPTION` characters."""

    context: str
    state: State
    description: str


def context(key: str) -> str:
    """The status's name, for example "quant-gate/default"."""
    return f"quant-gate/{wording.plain(key, limit=100)}"


def pending(key: str) -> CommitStatus:
    """What is set when a run starts."""
    return CommitStatus(context(key), "pending", "Judging the checkpoints that this change touches")


def settled(run: GateRun, *, forked: bool = False) -> CommitStatus:
    """What a finished run says.

    Args:
        forked: The run was a fork's own: its word, not ours.
    """
    waived = run.status == "fail" and run.waiver is not None
    text = f"Fork's own run: {describe(run)}" if forked else describe(run)
    return CommitStatus(
        context(run.key),
        "success" if waived else STATES[run.status],
        _shortened(text),
    )


def describe(run: GateRun) -> str:
    """The verdict in one sentence."""
    if run.status == "fail" and run.waiver is not None:
        return f"FAIL, waived by {run.waiver.by} until {run.waiver.expires}"
    if run.status == "error":
        failure = run.failures[0]
        return f"No verdict on {failure.checkpoint}: {failure.message}"
    if run.status == "skipped":
        if run.policy is not None and run.policy.advisory:
            return "Decides nothing yet: the base commit has no quant-gate settings"
        return "No checkpoint touched"
    word = wording.VERDICTS[run.status]
    deciding = [report for report in run.reports if report.verdict.outcome == run.status]
    of = "" if len(deciding) == len(run.reports) else f"{len(deciding)} of "
    if len(run.reports) > 1:
        return f"{word}: {of}{wording.count(len(run.reports), 'checkpoint')}"
    reason = next(iter(deciding[0].verdict.reasons), "")
    return f"{word}: {wording.name(deciding[0])}" + (f": {reason}" if reason else "")


def _shortened(text: str) -> str:
    clean = wording.plain(text, limit=2000)
    return clean if len(clean) <= MOST_DESCRIPTION else f"{clean[: MOST_DESCRIPTION - 1]}…"
