"""The probability that another run is judged otherwise, against simulated runs."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.stats import rerun

ROUNDS = 3000


def judged_otherwise(points: list[float], reach: int, squares: list[float]) -> list[float]:
    """How often two runs fall on two sides of a limit, and what each mean square says of that.

    Args:
        points: Of the documents that chance decides; the others are the same in every run.
        reach: How far limits lie from the truth at most.
        squares: Means over 541 documents.
    """
    draw = random.Random(7)
    found, stated = 0, [0.0] * len(squares)
    for _ in range(ROUNDS):
        first, other = (sum(p for p in points if draw.random() < 0.5) for _ in range(2))
        limit = round(sum(points) / 2) + draw.randint(-reach, reach)
        found += (first >= limit) != (other >= limit)
        for i, square in enumerate(squares):
            stated[i] += rerun.other_side(-first, -limit, 541, square, whole=True)
    return [found / ROUNDS, *(total / ROUNDS for total in stated)]


@pytest.mark.parametrize(("chance", "reach"), [(11, 6), (54, 12), (162, 20)])
def test_the_stated_probability_is_the_share_of_reruns_that_are_judged_otherwise(
    chance: int, reach: int
) -> None:
    # Two independent runs differ on half of the documents that chance decides.
    found, stated = judged_otherwise([1.0] * chance, reach, [chance / 2 / 541])
    assert found > 0.05
    assert stated == pytest.approx(found, abs=0.015)


def test_partial_credit_goes_by_the_squares_and_not_by_the_share_of_flips() -> None:
    """Some of the documents that chance decides are worth three points."""
    points = [3.0] * 30 + [1.0] * 60
    square, share = (30 * 9 + 60) / 2 / 541, 90 / 2 / 541
    found, by_square, by_share = judged_otherwise(points, 40, [square, share])
    assert by_square == pytest.approx(found, abs=0.015)
    assert by_share < 0.75 * found


def test_two_runs_differ_by_share_and_by_square() -> None:
    assert rerun.difference([1.0, 0.0, 3.0, 2.0], [1.0, 1.0, 0.0, 2.0]) == (0.5, 2.5)
    with pytest.raises(ValueError, match="zip"):
        rerun.difference([1.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("net_loss", "share", "stated"),
    [(12, 0.01, 0.0001), (12, 0.02, 0.005), (12, 0.05, 0.05), (18, 0.01, 0.14), (18, 0.05, 0.32)],
)
def test_figures_of_an_ifeval_run_with_a_budget_of_twenty(net_loss, share, stated) -> None:
    found = rerun.other_side(net_loss, 20, 541, share, whole=True)
    assert found == pytest.approx(stated, rel=0.1, abs=5e-5)


def test_the_verdict_changes_halfway_between_the_last_that_passes_and_the_first_that_fails() -> (
    None
):
    last, first = (rerun.other_side(lost, 20, 541, 0.02, whole=True) for lost in (20, 21))
    assert last == pytest.approx(first)
    assert 0.4 < last < 0.5
    assert rerun.other_side(20.0, 20.0, 541, 0.02, whole=False) == 0.5


def test_a_share_that_was_never_seen_is_bounded_by_three_in_n() -> None:
    assert rerun.mean_square(0.0, 600, [1.0] * 600) == pytest.approx(0.005)
    # A document that can lose three points may move by all of them.
    assert rerun.mean_square(0.0, 600, [1.0] * 300 + [3.0] * 300) == pytest.approx(0.025)
    assert rerun.mean_square(0.01, 600, [1.0] * 600) == 0.01
    assert rerun.mean_square(0.0, 2, [1.0, 1.0]) == 1.0, "a share is at most one"


def test_what_is_no_number_gives_none() -> None:
    assert math.isnan(rerun.other_side(math.nan, 20, 541, 0.02, whole=True))
    assert math.isnan(rerun.other_side(3, 20, 541, math.nan, whole=True))
    assert rerun.other_side(3, 20, 541, 0.0, whole=True) == 0.0


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1))
def test_it_is_never_more_than_even(net_loss: int, allowed: int, square: float) -> None:
    assert 0 <= rerun.other_side(net_loss, allowed, 541, square, whole=True) <= 0.5


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(0, 20, 0.0, 0.1684), (1, 20, 0.0013, 0.2487), (10, 20, 0.2720, 0.7280), (5, 5, 0.4782, 1.0)],
)
def test_the_exact_interval_of_a_share(count: int, n: int, low: float, high: float) -> None:
    """Values of the published tables of Clopper and Pearson's interval."""
    assert rerun.proportion(count, n) == pytest.approx((low, high), abs=5e-5)
