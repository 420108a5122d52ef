"""Finished runs of the gate to deliver: sound, broken, waived, without a verdict."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from results import size

from gate import verdict
from gate.records import (
    ChangedCheckpoint,
    Comparison,
    Detection,
    Failure,
    Finding,
    GateRun,
    LintResult,
    Report,
    RuleInfo,
    Waiver,
)

HEAD = "a" * 40
BASE = "b" * 40
REPOSITORY = "octo-org/models"
WAIVER = Waiver(
    label="quant-gate: waive",
    by="maintainer",
    at="2026-11-21T10:00:00+00:00",
    expires="2026-11-24T10:00:00+00:00",
)
FINDING = Finding(
    rule="missing-scale",
    severity="error",
    message="q_proj is FP8 and has no weight_scale",
    tensor="model.layers.0.self_attn.q_proj.weight",
    file="model.safetensors",
    fix="Export the checkpoint again with its scales.",
)


def comparison(lost: float = 12, **changes: Any) -> Comparison:
    """A task metric that may lose 20 points of 400."""
    stated = {
        "task": "ifeval",
        "metric": "inst_level_strict_acc",
        "baseline": 0.74,
        "candidate": 0.74 * (400 - lost) / 400,
        "delta": -0.74 * lost / 400,
        "retention": (400 - lost) / 400,
        "ci_low": 0.93,
        "ci_high": 0.99,
        "threshold": Decimal("0.95"),
        "n": 541,
        "budget": 20,
        "net_loss": lost,
        "losses": lost + 4,
        "gains": 4,
        "method": "error budget",
        "outcome": "pass" if lost <= 20 else "fail",
        "reason": f"ifeval: may lose 20 net, lost {lost}",
    }
    return Comparison.model_validate(stated | changes)


def report(
    name: str = "models/fp8", *, lost: float = 12, findings: Sequence[Finding] = ()
) -> Report:
    """What was decided about one checkpoint."""
    lint = LintResult(
        format="modelopt",
        algorithms=("FP8",),
        findings=tuple(findings),
        rules_run=(RuleInfo(id="missing-scale", severity="error", summary="A scale is missing."),),
    )
    return Report(
        gate_version="0.1.0",
        checkpoint=name,
        revision=None,
        command=f"gate check {name}",
        settings={},
        lint=lint,
        size=size(163_000_000, 9.7, 269_000_000),
        evaluation=None,
        baseline=None,
        verdict=verdict.decide(lint, (comparison(lost),)),
        date="2026-11-21T11:00:00+00:00",
        duration_s=12.5,
    )


def failure(name: str = "models/fp8") -> Failure:
    """A checkpoint without a verdict."""
    return Failure(
        checkpoint=name, exit_code=3, message="out of memory", hint="Use a larger device."
    )


def run(*reports: Report, run_id: int | None = 100, **changes: Any) -> GateRun:
    """A run over these checkpoints, for pull request 7."""
    paths = [each.checkpoint for each in (*reports, *changes.get("failures", ()))]
    detection = Detection(
        base=BASE,
        head=HEAD,
        source="git",
        checkpoints=tuple(ChangedCheckpoint(path=path, change="modified") for path in paths),
    )
    stated = {
        "gate_version": "0.1.0",
        "key": "default",
        "repository": REPOSITORY,
        "event": "pull_request",
        "run_id": run_id,
        "run_url": f"https://github.invalid/{REPOSITORY}/actions/runs/{run_id}",
        "head_sha": HEAD,
        "pull_request": 7,
        "detection": detection,
        "reports": reports,
        "date": "2026-11-21T12:00:00+00:00",
    }
    return GateRun.model_validate(stated | changes)


PASSED = run(report())
FAILED = run(report(lost=31))
EMPTY = run()
