"""Reports for a dashboard: small ones, as many as are wanted."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from reports_data import linted
from results import result, size

from gate.dashboard import Seen
from gate.records import BaselineInfo, Comparison, Report, Verdict

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
METRIC = "inst_level_strict_acc"
MEASURED = result()
BASELINE = BaselineInfo(
    path="baselines/model.json",
    model="acme/model",
    revision=None,
    weights_digest=MEASURED.weights_digest,
    date=MEASURED.date,
    device="cpu",
)


FORMATS = (("fp8", 0.99, 163), ("nvfp4", 0.965, 116), ("int4", 0.93, 105))
"""What of a checkpoint is retained at first, and how large it is."""


def compared(retention: float, outcome: str | None, **changes: object) -> Comparison:
    """A metric that decides by points, with 0.95 as its limit."""
    stated = {
        "task": "ifeval",
        "metric": METRIC,
        "baseline": 0.5,
        "candidate": 0.5 * retention,
        "delta": 0.5 * retention - 0.5,
        "retention": retention,
        "ci_low": None,
        "ci_high": None,
        "threshold": Decimal("0.95"),
        "n": 541,
        "budget": 13,
        "method": "points lost net <= budget",
        "outcome": outcome,
        "reason": f"lost so much that {retention:.3f} is left",
    }
    return Comparison.model_validate(stated | changes)


def report(
    name: str = "models/fp8",
    retention: float | None = 0.98,
    *,
    day: float = 0,
    outcome: str | None = None,
    model: str | None = "acme/model",
    algorithm: str = "FP8",
    megabytes: float = 116.5,
    comparison: dict[str, object] | None = None,
    **changes: object,
) -> Report:
    """A report on one metric; without a retention, one of static validation alone.

    Args:
        day: After the first.
        comparison: Fields of the metric to change.
    """
    said = outcome or ("pass" if retention is None or retention >= 0.95 else "fail")
    found = [] if retention is None else [compared(retention, said, **(comparison or {}))]
    stated: dict[str, Any] = {
        "gate_version": "0.1.0",
        "checkpoint": name,
        "revision": None,
        "command": f"gate check {name}",
        "settings": {},
        "lint": linted(algorithm),
        "size": size(round(megabytes * 1e6), megabytes / 16.8, 269_000_000),
        "evaluation": MEASURED if found else None,
        "baseline": BASELINE.model_copy(update={"model": model}) if model else None,
        "verdict": Verdict(
            outcome=said,
            reasons=(found[0].reason,) if found else (),
            fix=None if said == "pass" else "Quantize fewer layers.",
            stage="evaluation" if found else "lint",
            comparisons=tuple(found),
        ),
        "date": (START + timedelta(days=day)).isoformat(),
        "duration_s": 1.0,
    }
    return Report.model_validate(stated | changes)


def seen(*arguments: Any, branch: str = "", proposed: bool = False, **changes: Any) -> Seen:
    """What `report` takes, and where it comes from."""
    return Seen(report(*arguments, **changes), branch, proposed)


def several() -> list[Seen]:
    """Two families, four formats, a checkpoint that slowly gets worse, and one without a figure."""
    found = [
        seen(f"models/{form}", kept - 0.004 * day, day=7 * day, algorithm=form.upper(),
             megabytes=megabytes, branch="main" if day else "try")
        for form, kept, megabytes in FORMATS
        for day in range(6)
    ]  # fmt: skip
    found += [seen("models/70b-fp8", 0.97, model="acme/large", megabytes=70_500, day=3)]
    return [*found, seen("models/linted", None, model=None, day=50)]


def data(directory: Path) -> dict[str, Any]:
    """What the page's script reads, whose numbers are all finite."""
    html = (directory / "index.html").read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value: dict[str, Any] = json.loads(found, parse_constant=refuse)
    return value


def headline(directory: Path) -> str:
    """What is read first."""
    html = (directory / "index.html").read_text(encoding="utf-8")
    return " ".join(re.findall(r"<h1>(.*?)</h1>", html)[0].split())
