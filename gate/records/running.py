"""What one run of the gate did about a change: what it detected, judged, and by whose settings."""

from typing import Literal

from gate.records.judging import Report
from gate.records.storing import SCHEMA_VERSION, Record
from gate.records.trusting import Policy


class ChangedCheckpoint(Record):
    """A checkpoint that a change touches.

    Attributes:
        path: Directory or GGUF file in the repository, `/` between names and `.` for its root; or
            a pin of the settings, `org/name@revision`.
        previous: Where it lay before it was renamed; of a pin, what was pinned before.
        files: Changed files, the first hundred by name.
        pointers: How many of its files are Git LFS pointers in the head commit.
    """

    path: str
    change: Literal["added", "modified", "renamed", "removed"]
    previous: str | None = None
    files: tuple[str, ...] = ()
    pointers: int = 0


class Failure(Record):
    """A checkpoint without a verdict, and why."""

    checkpoint: str
    exit_code: int
    message: str
    hint: str


class Detection(Record):
    """What changed between two commits.

    Attributes:
        base: The commit compared with: the merge base where there is one; None for everything.
        head: The commit that is judged.
        source: How both were read, in words: "git", "git, base commit fetched", "API".
        policy_files: Changed files that settings, baselines or tasks are made of.
        left_out: Changed checkpoints that the path filters leave out.
        submodules: Submodules that were moved to another commit; they are not looked into.
        failures: Changed checkpoints that cannot be judged, as their names are no paths.
    """

    schema_version: int = SCHEMA_VERSION
    base: str | None
    head: str | None
    source: str
    checkpoints: tuple[ChangedCheckpoint, ...] = ()
    policy_files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    submodules: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def present(self) -> tuple[ChangedCheckpoint, ...]:
        """Those that can be judged: all but the removed ones."""
        return tuple(found for found in self.checkpoints if found.change != "removed")


class Waiver(Record):
    """A failure that somebody takes responsibility for.

    Attributes:
        by: Who set the label.
        at, expires: When it was set and until when it counts, ISO 8601.
    """

    label: str
    by: str
    at: str
    expires: str


Status = Literal["pass", "fail", "inconclusive", "skipped", "error"]


class GateRun(Record):
    """One run of the gate over the checkpoints that a change touches: what the action stores.

    Attributes:
        key: Tells this gate from others on the same pull request.
        event: GitHub's name of what started it.
        head_sha: The commit on which it is reported.
        failures: Checkpoints without a verdict.
        waiver: Counts for the failed verdicts; it does not turn them into passed ones.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    key: str
    repository: str | None = None
    event: str | None = None
    run_id: int | None = None
    run_attempt: int = 1
    run_url: str | None = None
    head_sha: str | None = None
    pull_request: int | None = None
    detection: Detection | None = None
    policy: Policy | None = None
    reports: tuple[Report, ...] = ()
    failures: tuple[Failure, ...] = ()
    waiver: Waiver | None = None
    date: str

    @property
    def status(self) -> Status:
        """The worst of all verdicts; nothing judged, or nothing that decides, is `skipped`."""
        outcomes = {report.verdict.outcome for report in self.reports}
        if self.policy is not None and self.policy.advisory:
            return "error" if self.failures else "skipped"
        if "fail" in outcomes:
            return "fail"
        if self.failures:
            return "error"
        if "inconclusive" in outcomes:
            return "inconclusive"
        return "pass" if outcomes else "skipped"
