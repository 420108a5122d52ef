"""What a run leaves behind to be signed: for each checkpoint that passed, a statement in parts.

The step signs nothing: a job of its own does, which runs no code of the repository and alone may
ask for a signing certificate.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gate import detect, records
from gate.errors import AttestError, GateError
from gate.github.judging import failure
from gate.records import Failure, GateRun

MOST_SUBJECTS = 1024
"""Files that actions/attest signs at once."""


class Attested(NamedTuple):
    """What was stated.

    Attributes:
        matrix: For `strategy.matrix`: each `checkpoint`, and the `name` of its directory.
        failures: Checkpoints that passed, and about which nothing can be stated.
    """

    matrix: dict[str, Any]
    failures: tuple[Failure, ...]


def attest(run: GateRun, stored: Path, root: Path, directory: Path) -> Attested:
    """State what passed; every file of it is read again.

    A checkpoint on the hub is left out: who publishes its files attests them.

    Args:
        run: All that was judged.
        stored: The file that holds it.
        root: The work tree.
        directory: Where each checkpoint gets a directory.
    """
    names = [name for name in _passed(run) if (root / name).is_dir()]
    matrix = detect.jobs(names)
    failures = []
    for job in matrix["include"]:
        try:
            _state(stored, root / job["checkpoint"], directory / job["name"])
        except GateError as error:
            failures.append(failure(job["checkpoint"], error))
    return Attested(matrix, tuple(failures))


def _passed(run: GateRun) -> Iterable[str]:
    """Checkpoints of which nothing failed; a waiver lets a change be merged, nothing more."""
    if run.waiver is not None or (run.policy is not None and run.policy.advisory):
        return
    lost = {each.checkpoint for each in run.failures}
    lost |= {report.checkpoint for report in run.reports if report.verdict.outcome != "pass"}
    yield from dict.fromkeys(r.checkpoint for r in run.reports if r.checkpoint not in lost)


def _state(stored: Path, checkpoint: Path, directory: Path) -> None:
    """Write a statement, and what signs it takes: its predicate and its files.

    Raises:
        GateError: The report is about other bytes, or not about all, or there are too many.
    """
    from gate import attest as attesting

    statement = attesting.attest(stored, checkpoint)
    if len(statement.subject) > MOST_SUBJECTS:
        raise AttestError(
            f"{checkpoint.name} has {len(statement.subject):,} files, and GitHub signs a statement "
            f"about {MOST_SUBJECTS:,}",
            "Release it in several directories.",
        )
    parts = {
        "statement.json": attesting.text(statement),
        "predicate.json": attesting.predicate(statement),
        "files.sha256": attesting.checksums(statement),
    }
    for name, text in parts.items():
        records.write_text(directory / name, text)
