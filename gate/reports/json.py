"""The report as JSON: everything that was measured, so that it can be compared again."""

from gate.records import Report


def render(report: Report) -> str:
    """One JSON document with a `schema_version`; `records.read` reads it back."""
    return report.model_dump_json(indent=1) + "\n"
