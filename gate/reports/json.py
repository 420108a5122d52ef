"""The report as JSON: everything that was measured, so that it can be compared again."""

from gate.records import Report


def render(*reports: Report) -> str:
    """One JSON document with a `schema_version`, which `records.read` reads back.

    Several are JSON Lines: one document a line.
    """
    indent = 1 if len(reports) == 1 else None
    return "".join(inert(report.model_dump_json(indent=indent)) + "\n" for report in reports)


def inert(document: str) -> str:
    """JSON, or a string of it, without what a GitHub runner takes for a command when shown."""
    return document.replace("##[", "#\\u0023[")
