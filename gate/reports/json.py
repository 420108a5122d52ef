"""The report as JSON: every figure, without the samples (the stored result has those)."""

from gate.records import Report


def render(report: Report) -> str:
    """One JSON document with a `schema_version`; `records.read` reads it back."""
    return report.without_samples().model_dump_json(indent=1) + "\n"
