"""Budgets exactly, intervals by simulation and by enumeration."""

import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.stats import paired

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
RETENTION = st.decimals(min_value="0.01", max_value="1", places=4)


def test_budget_is_exact_where_floats_are_one_too_low():
    for points in range(10, 2000, 10):
        assert math.floor((1 - 0.9) * points) == points // 10 - 1  # what floats give
        assert paired.budget(float(points), Decimal("0.9")) == points // 10


def test_budget_of_the_usual_suite():
    assert paired.budget(400.0, Decimal("0.95")) == 20
    assert paired.budget(399.0, Decimal("0.95")) == 19
    assert paired.budget(Decimal("0.5"), Decimal("0.95")) == 0


def test_budget_keeps_decimals_beyond_28_digits():
    retention = Decimal("0." + "9" * 40)
    assert paired.budget(10.0**40, retention) == Fraction(10.0**40) // 10**40


@given(points=st.integers(0, 10**6), retention=RETENTION, loss=st.integers(-100, 10**6))
def test_budget_is_the_point_rule(points, retention, loss):
    keeps_enough = Fraction(points - loss) >= Fraction(retention) * points
    assert (loss <= paired.budget(float(points), retention)) == keeps_enough


@given(BITS)
def test_change_accounts_for_every_point(pairs):
    candidate, baseline = [float(c) for c, _ in pairs], [float(b) for _, b in pairs]
    moved = paired.change(candidate, baseline)
    assert moved.net_loss == sum(baseline) - sum(candidate)
    assert moved.losses + moved.gains == moved.flips * len(pairs) or math.isclose(
        moved.losses + moved.gains, moved.flips * len(pairs)
    )
    mirrored = paired.change(baseline, candidate)
    assert (mirrored.losses, mirrored.gains) == (moved.gains, moved.losses)


@given(BITS, st.integers(0, 59))
def test_a_nan_score_passes_nothing(pairs, where):
    candidate, baseline = [float(c) for c, _ in pairs], [float(b) for _, b in pairs]
    candidate[where % len(pairs)] = math.nan
    moved = paired.change(candidate, baseline)
    assert not moved.net_loss <= 10**9
    interval = paired.retention_interval(candidate, baseline)
    assert not interval.value >= 0 and not interval.low >= 0
    ratio = paired.ratio_interval(candidate, baseline, 1)
    assert not ratio.value <= 10**9


def test_infinities_of_both_signs_give_nan_not_an_exception():
    assert math.isnan(paired.total([math.inf, -math.inf]))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="zip"):
        paired.change([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="zip"):
        paired.retention_interval([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="no windows"):
        paired.ratio_interval([], [], 10)


@given(BITS)
def test_retention_interval_encloses_the_retention_and_never_vanishes(pairs):
    candidate, baseline = [float(c) for c, _ in pairs], [float(b) for _, b in pairs]
    interval = paired.retention_interval(candidate, baseline)
    if not sum(baseline):
        assert math.isnan(interval.value)
        return
    assert interval.value == sum(candidate) / sum(baseline)
    assert interval.low < interval.value < interval.high


def test_documents_are_the_clusters():
    """Ten points that move together in one document say less than ten that move alone."""
    baseline = [10.0] * 40
    together = [0.0, 0.0, *baseline[2:]]
    spread = [9.0] * 20 + [10.0] * 20
    wide = paired.retention_interval(together, baseline)
    narrow = paired.retention_interval(spread, baseline)
    assert wide.value == narrow.value == 0.95
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("retention", "flips"), [(1.0, 0.05), (0.969, 0.10), (0.90, 0.15)])
def test_retention_interval_covers_95_percent(retention, flips):
    """541 documents, the baseline right on 74 %: as measured for IFEval."""
    rng = np.random.default_rng(20260101)
    n, right, runs = 541, 0.7394, 2000
    lost = (flips + right * (1 - retention)) / 2 / right
    gained = (flips - right * (1 - retention)) / 2 / (1 - right)
    covered = 0
    for _ in range(runs):
        b = rng.random(n) < right
        flip = rng.random(n) < np.where(b, lost, gained)
        interval = paired.retention_interval((b ^ flip).astype(float), b.astype(float))
        covered += interval.low <= retention <= interval.high
    assert 0.94 <= covered / runs <= 0.97


def test_retention_interval_by_enumeration():
    """All outcomes of eight documents that the baseline got right: coverage, weighted exactly."""
    n, loss = 8, 0.1
    covered = 0.0
    for lost in itertools.product([0, 1], repeat=n):
        chance = math.prod(loss if x else 1 - loss for x in lost)
        interval = paired.retention_interval([1.0 - x for x in lost], [1.0] * n)
        covered += chance * (interval.low <= 1 - loss <= interval.high)
    # Zero to two losses cover; without the pseudo points, zero losses (0.43) would not.
    assert covered > 0.93


def test_ratio_of_a_model_to_itself_is_one():
    assert paired.ratio_interval([1.5, 2.5], [1.5, 2.5], 7) == (1.0, 1.0, 1.0)


def test_ratio_by_hand():
    interval = paired.ratio_interval([12.0, 16.0, 14.0], [10.0, 10.0, 10.0], 10)
    assert interval.value == pytest.approx(math.exp(0.4))
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # t with two degrees of freedom
    assert interval.low == pytest.approx(math.exp(0.4 - half))
    assert interval.high == pytest.approx(math.exp(0.4 + half))


def test_one_window_has_no_interval():
    interval = paired.ratio_interval([11.0], [10.0], 10)
    assert interval.value == pytest.approx(math.exp(0.1))
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_a_ratio_too_large_for_a_float_is_infinite():
    assert paired.ratio_interval([1e9, 1e9], [0.0, 0.0], 1).value == math.inf


@pytest.mark.parametrize("windows", [8, 56])
def test_ratio_interval_covers_95_percent(windows):
    rng = np.random.default_rng(20260102)
    runs, truth = 2000, 0.03
    baseline = np.zeros(windows)
    covered = 0
    for _ in range(runs):
        candidate = 512 * rng.normal(truth, 0.0166, windows)
        interval = paired.ratio_interval(candidate, baseline, 512)
        covered += interval.low <= math.exp(truth) <= interval.high
    assert 0.935 <= covered / runs <= 0.965
