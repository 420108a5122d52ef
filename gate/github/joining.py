"""Several stored runs as one: each job of a matrix judges a checkpoint, and one job publishes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from posixpath import join as join_path
from posixpath import normpath
from typing import Any

from gate import records
from gate.errors import ExitCode, GateError, PublishError
from gate.records import Detection, Failure, GateRun, Policy, Report

FILE = "run.json"
AGREEING = ("repository", "key", "head_sha", "pull_request", "event", "run_id")
"""What all parts of one run have in common."""


def load(paths: Sequence[Path]) -> GateRun:
    """The one run that stored parts make up.

    Args:
        paths: Each a run.json, or a directory with some at any depth.

    Raises:
        PublishError: There is none, one cannot be read, or they are not parts of one run.
    """
    files = [
        file for path in paths for file in (sorted(path.rglob(FILE)) if path.is_dir() else [path])
    ]
    if not files:
        where = ", ".join(map(str, paths))
        raise PublishError(f"there is no {FILE} in {where}", "Look at the jobs that judge.")
    try:
        return join([records.read(file, GateRun) for file in files])
    except PublishError:
        raise
    except GateError as error:
        raise PublishError(error.message, "Run the jobs that judge again.") from error


def join(runs: Sequence[GateRun]) -> GateRun:
    """One run with everything that these judged; what none of them judged is a failure.

    Where a job was repeated, the newer attempt's word on a checkpoint counts.

    Raises:
        PublishError: They are not parts of one run.
    """
    parts = sorted(runs, key=lambda run: (run.run_attempt, run.date))
    common = {name: _common(parts, name) for name in AGREEING}
    judged: dict[str, Report | Failure] = {}
    for part in parts:
        found: tuple[Report | Failure, ...] = (*part.reports, *part.failures)
        # Of one part, a failure outweighs a report on the same checkpoint.
        judged |= {_name(each): each for each in found}
    detection = _detection([part.detection for part in parts if part.detection is not None])
    failures = [each for each in judged.values() if isinstance(each, Failure)]
    failures += _unjudged(detection, judged) if detection is not None else []
    newest = parts[-1]
    return newest.model_copy(
        update={
            **common,
            "run_url": next((part.run_url for part in reversed(parts) if part.run_url), None),
            "detection": detection,
            "policy": policy(part.policy for part in parts),
            "reports": tuple(each for each in judged.values() if isinstance(each, Report)),
            "failures": tuple(failures),
            "waiver": _waiver(parts),
            "date": max(part.date for part in parts),
        }
    )


def _name(judged: Report | Failure) -> str:
    """A checkpoint's path, or that of its first file where the look was limited to some."""
    files = judged.files if isinstance(judged, Report) else ()
    return normpath(join_path(judged.checkpoint, *files[:1]))


def _common(parts: Sequence[GateRun], name: str) -> Any:
    """The one value that they have; those that say nothing do not count."""
    values = {value for part in parts if (value := getattr(part, name)) is not None}
    if len(values) > 1:
        shown = " and ".join(sorted(str(value)[:80] for value in values))
        raise PublishError(
            f"the stored runs cannot be joined: their {name} is {shown}",
            "Pass the run.json files of one workflow run.",
        )
    return values.pop() if values else None


def _detection(found: Sequence[Detection]) -> Detection | None:
    if not found:
        return None
    for name in ("base", "head"):
        _same((getattr(each, name) for each in found), f"the {name} commits that they compared")
    checkpoints = {changed.path: changed for each in found for changed in each.checkpoints}
    policy_files = dict.fromkeys(file for each in found for file in each.policy_files)
    failures = dict.fromkeys(failure for each in found for failure in each.failures)
    return found[0].model_copy(
        update={
            "checkpoints": tuple(checkpoints.values()),
            "policy_files": tuple(policy_files),
            "failures": tuple(failures),
        }
    )


def policy(policies: Iterable[Policy | None]) -> Policy | None:
    """The policy of a run, of which every checkpoint may pin a reference.

    Raises:
        PublishError: They come from different commits.
    """
    found = [each for each in policies if each is not None]
    if not found:
        return None
    _same(((each.commit, each.digest) for each in found), "the settings that they judged by")
    changed = dict.fromkeys(file for each in found for file in each.changed)
    pins = {pin.path: pin for each in found for pin in each.references}
    update = {"changed": tuple(changed), "references": tuple(pins.values())}
    return found[-1].model_copy(update=update)


def _same(values: Iterable[object], what: str) -> None:
    if len(set(values)) > 1:
        raise PublishError(
            f"the stored runs cannot be joined: {what} are not the same",
            "Run all jobs of the workflow again.",
        )


def _waiver(parts: Sequence[GateRun]) -> Any:
    """The waiver, where every part that failed has it."""
    failed = [part for part in parts if part.status == "fail"] or parts
    waivers = {part.waiver for part in failed}
    return waivers.pop() if len(waivers) == 1 else None


def _unjudged(detection: Detection, judged: Mapping[str, Report | Failure]) -> list[Failure]:
    """One failure for each checkpoint that was detected and that no job reported on."""
    split = {
        normpath(join_path(each.checkpoint, file))
        for each in judged.values()
        if isinstance(each, Report)
        for file in each.files
    }
    names = judged.keys() | split
    missing = [
        Failure(
            checkpoint=changed.path,
            exit_code=ExitCode.NO_VERDICT,
            message="the job that was to judge it left no report",
            hint="Open that job's log, and run it again.",
        )
        for changed in detection.present
        if normpath(changed.path) not in names
    ]
    return missing + [each for each in detection.failures if _name(each) not in names]
