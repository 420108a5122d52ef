"""Speed in the report of a stranger: its names, its limits, and what follows from its figures."""

import math
from decimal import Decimal

import pytest
from github_runs import report, run
from hypothesis import given
from hypothesis import strategies as st

from gate.github import figures, outcome
from gate.records import Comparison
from gate.reports import metrics
from gate.verdict import PEAK_MEMORY, SPEED

DECODE = "decode tokens/s at batch 8"


def claimed(metric: str = DECODE, **changes: object) -> Comparison:
    stated = {
        "task": SPEED,
        "metric": metric,
        "baseline": 100.0,
        "candidate": 96.0,
        "delta": -4.0,
        "retention": 0.96,
        "ci_low": None,
        "ci_high": None,
        "threshold": "0.95",
        "n": 3,
        "method": "median of repeated runs",
        "outcome": "pass",
        "reason": "said",
    }
    return Comparison.model_validate(stated | changes)


@pytest.mark.parametrize("metric", [DECODE, f"{DECODE}, at least", PEAK_MEMORY])
def test_names_of_figures_are_kept(metric: str) -> None:
    assert figures.comparison(claimed(metric)).metric == metric


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        (SPEED, f"{DECODE} <b>approved</b>"),
        (SPEED, f"{DECODE}\n"),
        (SPEED, "decode tokens/s at batch 99999"),
        ("ifeval", DECODE),
    ],
)
def test_names_that_only_look_alike_are_not(task: str, metric: str) -> None:
    assert figures.comparison(claimed(metric, task=task)).metric == figures.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({}, "pass"),
        ({"retention": 0.94}, "fail"),
        ({"retention": 0.94, "borderline": True}, "pass"),
        ({"retention": 0.94, "borderline": True, "outcome": "inconclusive"}, "inconclusive"),
        ({"retention": math.nan}, "fail"),
        ({"absolute": True, "threshold": "90", "retention": math.nan}, "pass"),
        ({"absolute": True, "threshold": "97", "retention": math.nan}, "fail"),
        ({"absolute": True, "threshold": "90", "candidate": math.nan}, "fail"),
        ({"absolute": True, "threshold": "2E9", "higher_is_better": False}, "pass"),
        ({"absolute": True, "threshold": "95", "higher_is_better": False}, "fail"),
        ({"threshold": None}, None),
    ],
)
def test_the_outcome_follows_from_the_figures(
    changes: dict[str, object], follows: str | None
) -> None:
    assert figures.comparison(claimed(**changes)).outcome == follows


def test_a_limit_in_bytes_keeps_its_digits() -> None:
    limit = claimed(PEAK_MEMORY, threshold="1234567890", absolute=True, higher_is_better=False)
    assert figures.comparison(limit).threshold == Decimal("1234567890")
    assert figures.comparison(claimed(threshold="1234567890")).threshold == 0


@given(
    metric=st.sampled_from([DECODE, PEAK_MEMORY]),
    low=st.floats(),
    high=st.floats(),
    limit=st.decimals(allow_nan=False, allow_infinity=False),
    absolute=st.booleans(),
)
def test_figures_of_any_size_are_shown(
    metric: str, low: float, high: float, limit: Decimal, absolute: bool
) -> None:
    odd = claimed(metric).model_copy(
        update={"baseline": low, "candidate": high, "threshold": limit, "absolute": absolute}
    )
    for found in (odd, figures.comparison(odd)):
        assert len(metrics.cells(found)) == len(metrics.COLUMNS)


def test_speed_is_no_share_of_a_score() -> None:
    judged = report("a")
    decided = judged.verdict.model_copy(update={"comparisons": (claimed(retention=0.1),)})
    done = run(judged.model_copy(update={"verdict": decided}))
    assert outcome.retention(done) is None
