"""A verdict as an in-toto statement about every file of the checkpoint.

The statement holds digests and figures, no prompts and no answers. It is signed elsewhere, by the
workflow: whoever wants to trust it unsigned must trust where it lies.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gate import card, digests
from gate.errors import AttestError, CardError
from gate.records import Comparison, Report, Resource, Statement, TestResult, Waiver
from gate.report import stored

REPORT, SETTINGS, POLICY, BASELINE, SUITE = "report", "settings", "policy", "baseline", "suite "
"""Names of the configuration's parts; a suite's is followed by its task."""

PUBLISHED = "published"
"""Among the report's annotations: what `gate push` writes, by its SHA-256."""

RESULTS = {"pass": "PASSED", "inconclusive": "WARNED", "fail": "FAILED"}
NAMED = 5
"""Files that a message names."""

CHECK = "Make the report: gate check CHECKPOINT --full --report json=report.json"


def attest(reports: Path, checkpoint: Path) -> Statement:
    """The statement that a report makes about a checkpoint.

    Args:
        reports: A report (`gate check --report json=`), or a run that holds one about the
            checkpoint (run.json of the action).
        checkpoint: Its directory, whose every file is read.

    Raises:
        AttestError: The report measured nothing, not everything, other bytes, a server, or weights
            that were quantized at load.
    """
    kept = stored(reports)
    files = digests.of(checkpoint, digests.shipped(checkpoint))
    report = about(kept.reports, reports, files)
    waiver = kept.run.waiver if kept.run else None
    _require_whole(report, reports)
    _require_own(report, reports)
    verdict = report.verdict
    names: dict[str, list[str]] = {"pass": [], "inconclusive": [], "fail": []}
    for test, outcome in _tests(report).items():
        names[outcome].append(test)
    return Statement(
        subject=tuple(Resource(name=name, digest={"sha256": sha}) for name, sha in files.items()),
        predicate=TestResult.model_validate(
            {
                "result": RESULTS[verdict.outcome],
                "configuration": _configuration(report, kept.content, waiver, checkpoint),
                "passed_tests": names["pass"],
                "warned_tests": names["inconclusive"],
                "failed_tests": names["fail"],
            }
        ),
    )


def text(statement: Statement) -> str:
    """The statement as it is stored."""
    return statement.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n"


def published(statement: Statement) -> dict[str, str]:
    """SHA-256 of each file that a push may publish in place of what was judged, or beside it."""
    report = statement.predicate.resource(REPORT)
    found = report.annotations.get(PUBLISHED) if report is not None else None
    found = found if isinstance(found, dict) else {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


def about(reports: Sequence[Report], path: Path, files: Mapping[str, str]) -> Report:
    """The report about exactly these files.

    Raises:
        AttestError: There is none.
    """
    for report in reports:
        if report.digests == files:
            return report
    if not any(report.digests for report in reports):
        raise AttestError(f"{path} measured nothing, so there is nothing to attest", CHECK)
    nearest = min(reports, key=lambda report: len(digests.different(report.digests, files)))
    different = digests.different(nearest.digests, files)
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    raise AttestError(
        f"{path} is about other bytes than these: {', '.join(different[:NAMED])}{more}",
        "Judge what is to be released: gate check CHECKPOINT --full --report json=report.json",
    )


def predicate(statement: Statement) -> str:
    """The statement's predicate by itself, for who signs one."""
    return statement.predicate.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n"


def checksums(statement: Statement) -> str:
    """The statement's files as `sha256sum` lists them, for who signs them.

    Raises:
        AttestError: A name cannot stand in a line.
    """
    for name in statement.digests:
        if "\n" in name or "\\" in name:
            raise AttestError(f"{name!r} cannot stand in a list of files", "Rename the file.")
    return "".join(f"{digest}  {name}\n" for name, digest in statement.digests.items())


def _require_own(report: Report, path: Path) -> None:
    """Only who loaded the bytes can say that they were measured, and as what they are.

    Raises:
        AttestError: A server did, they were quantized at load, or the target computes otherwise.
    """
    if report.runtime_quantization is not None:
        raise AttestError(
            f"{path} measured the model as it is once it is quantized at load "
            f"({report.runtime_quantization}): these files hold another",
            "Store the quantized model and judge that, or leave runtime_quantization out.",
        )
    target = report.evaluation.target if report.evaluation else None
    if target is not None and target.differs:
        raise AttestError(
            f"{path} measured something else than {target.name} computes: {target.differs[0]}",
            "Leave weights and activations out of quant-gate.yaml, or measure on the target.",
        )
    served = report.evaluation.served if report.evaluation else None
    if served is not None:
        raise AttestError(
            f"{path} measured what the server {served.host} serves as {served.model}: that these "
            "are the files is its word alone",
            "Judge the files themselves with backend: hf.",
        )


def _require_whole(report: Report, path: Path) -> None:
    """A release is attested by whole measurements, unless the settings say otherwise.

    Raises:
        AttestError: A task ended early, or the settings decided nothing.
    """
    if report.policy is not None and report.policy.advisory:
        raise AttestError(
            f"{path} was judged by settings that decide nothing: the base commit has none",
            "Merge the settings first.",
        )
    early = [c for c in report.verdict.comparisons if c.early_stop and c.outcome is not None]
    if early and report.settings.get("attest", "full") == "full":
        first = early[0]
        planned = first.early_stop.n_planned if first.early_stop else first.n
        raise AttestError(
            f"{first.task} {first.metric} ended after {first.n:,} of {planned:,} documents",
            "Measure everything with gate check --full, or allow it: attest: early in the "
            "settings.",
        )


def _tests(report: Report) -> dict[str, str]:
    """What decided: its name and outcome."""
    verdict = report.verdict
    tests = {"lint": "fail" if report.lint.errors else "pass"}
    if verdict.canary:
        tests["canary"] = "fail"
    for found in verdict.comparisons:
        if found.outcome is not None:
            tests[_name(found)] = found.outcome
    for found in report.previous.comparisons if report.previous else ():
        if found.outcome is not None:
            tests[f"{_name(found)} against what passed last"] = found.outcome
    return tests


def _name(comparison: Comparison) -> str:
    return f"{comparison.task} {comparison.metric}"


def _configuration(
    report: Report, content: bytes, waiver: Waiver | None, checkpoint: Path
) -> list[Resource]:
    """By what was judged: each part with its digest, the report with its figures."""
    figures = {
        "checkpoint": report.checkpoint,
        "date": report.date,
        "gate_version": report.gate_version,
        "outcome": report.verdict.outcome,
        "metrics": {_name(found): _figures(found) for found in report.verdict.comparisons},
        PUBLISHED: _published(report, checkpoint),
        **({"waiver": waiver.model_dump(mode="json")} if waiver else {}),
    }
    parts = [
        Resource(name=REPORT, digest=_sha256(content), annotations=figures),
        Resource(
            name=SETTINGS,
            digest=_sha256(json.dumps(report.settings, sort_keys=True).encode()),
            annotations=report.settings,
        ),
    ]
    if report.policy_digest is not None:
        parts.append(Resource(name=POLICY, digest={"sha256": report.policy_digest}))
    if report.baseline is not None:
        made = {"model": report.baseline.model, "date": report.baseline.date}
        digest = {"sha256": report.baseline.weights_digest}
        parts.append(Resource(name=BASELINE, digest=digest, annotations=made))
    for setup in report.evaluation.setups if report.evaluation else ():
        parts.append(Resource(name=f"{SUITE}{setup.task}", digest={"sha256": setup.task_hash}))
    return parts


def _published(report: Report, checkpoint: Path) -> dict[str, str]:
    """What a push would write, by its SHA-256; nothing where the card cannot take the results."""
    try:
        files = card.published(report, checkpoint)
    except CardError:
        # Whether a model is good enough does not hang on its card: `gate push` says what is wrong.
        return {}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _figures(comparison: Comparison) -> dict[str, Any]:
    """One metric: what was kept, of how many documents, and by which limit."""
    limit = comparison.threshold
    return {
        "retention": comparison.retention if comparison.early_stop is None else None,
        "limit": None if limit is None else str(limit),
        "outcome": comparison.outcome,
        "n": comparison.n,
    }


def _sha256(content: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(content).hexdigest()}
