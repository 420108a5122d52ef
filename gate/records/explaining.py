"""A diagnosis as `gate diagnose` stores it."""

from gate.records.diagnosing import Diagnosis
from gate.records.linting import LintResult
from gate.records.storing import SCHEMA_VERSION, Record


class DiagnosisReport(Record):
    """Where one checkpoint is hurt; no verdict.

    Attributes:
        checkpoint: What the user named.
        command: The command that repeats it.
        lint: What static validation found first.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    checkpoint: str
    revision: str | None
    command: str
    lint: LintResult
    diagnosis: Diagnosis
    date: str
