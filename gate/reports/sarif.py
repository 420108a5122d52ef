"""Findings as SARIF 2.1.0, which code scanning and editors read.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from gate.records import Finding, Report, RuleInfo
from gate.reports import findings, wording
from gate.reports.wording import plain

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(*reports: Report) -> str:
    """One log with one run, which holds the results of every checkpoint."""
    rules = {rule.id: rule for report in reports for rule in report.lint.rules_run}
    index = {name: place for place, name in enumerate(rules)}
    run = {
        "tool": {"driver": _driver(reports, rules.values())},
        "invocations": [_invocation(report) for report in reports],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, finding, index)
            for report in reports
            for finding in report.lint.findings
        ],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    text = json.dumps(log, indent=1, ensure_ascii=False).replace("##[", "#\\u0023[")
    return text + "\n"


def _driver(reports: Iterable[Report], rules: Iterable[RuleInfo]) -> dict[str, Any]:
    versions = [report.gate_version for report in reports]
    driver: dict[str, Any] = {"name": "quant-gate", "rules": [_rule(rule) for rule in rules]}
    return driver | ({"version": versions[0]} if versions else {})


def _rule(rule: RuleInfo) -> dict[str, Any]:
    described = {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.summary},
        "defaultConfiguration": {"level": rule.severity},
    }
    if rule.manual:
        described["help"] = {"text": rule.manual.replace("**", ""), "markdown": rule.manual}
    address = _manual_address()
    return described | ({"helpUri": f"{address}#{rule.id}"} if address else {})


def _manual_address() -> str | None:
    """Where the installed package says that its documentation lies."""
    from importlib import metadata  # slow to import, and needed for this alone

    try:
        urls = metadata.metadata("quant-gate").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return None
    named = {label.strip().lower(): url.strip() for label, _, url in
             (entry.partition(",") for entry in urls)}  # fmt: skip
    return named.get("documentation")


def _invocation(report: Report) -> dict[str, Any]:
    """One checkpoint's run: the command, its outcome, and the rules that did not run."""
    outcome = report.verdict.outcome
    return {
        "commandLine": plain(report.command),
        "executionSuccessful": True,
        "exitCode": {"pass": 0, "fail": 1, "inconclusive": 4}[outcome],
        "exitCodeDescription": wording.VERDICTS[outcome],
        "endTimeUtc": report.date.replace("+00:00", "Z"),
        "toolExecutionNotifications": [
            {
                "level": "note",
                "message": {"text": f"skipped: {plain(skipped.reason)}"},
                "associatedRule": {"id": plain(skipped.rule)},
                "locations": [{"physicalLocation": _artifact(report.checkpoint)}],
            }
            for skipped in report.lint.skipped
        ],
    }


def _result(report: Report, finding: Finding, index: Mapping[str, int]) -> dict[str, Any]:
    path = findings.path(report, finding)
    # A finding is about a whole file or a tensor; code scanning shows none without a line.
    physical = _artifact(path) | {"region": {"startLine": 1}}
    location: dict[str, Any] = {"physicalLocation": physical}
    places = [(finding.tensor, "member"), (finding.pointer, "object")]
    logical = [_logical(name, kind) for name, kind in places if name]
    if logical:
        location["logicalLocations"] = logical
    result: dict[str, Any] = {
        "ruleId": plain(finding.rule),
        "level": finding.severity,
        "message": {"text": f"{plain(finding.message)}. {plain(finding.fix)}"},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(path, finding)},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    if finding.ignored is not None:
        kept = {"kind": "external", "justification": plain(finding.ignored)}
        result["suppressions"] = [kept]
    return result


def _fingerprint(path: str, finding: Finding) -> str:
    """What stays the same from run to run, and tells findings of one rule in one file apart."""
    place = finding.tensor or finding.pointer or finding.message
    known = "\0".join((finding.rule, path, place))
    return f"{hashlib.sha256(known.encode(errors='backslashreplace')).hexdigest()[:16]}:1"


def _logical(name: str, kind: str) -> Mapping[str, str]:
    shown = plain(name)
    return {"name": shown, "fullyQualifiedName": shown, "kind": kind}


def _artifact(path: str) -> dict[str, Any]:
    """A file, as a relative reference unless its path is absolute."""
    clean = plain(path)
    if PurePath(clean).is_absolute():
        return {"artifactLocation": {"uri": f"file://{quote(clean)}"}}
    return {"artifactLocation": {"uri": quote(PurePath(clean).as_posix())}}
