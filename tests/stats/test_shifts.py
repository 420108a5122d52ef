"""Alarms about answers: rare where both models behave alike, certain where one does not."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from gate.stats.shifts import ALPHA, Shift, mean_ratio


def test_what_came_and_what_went_is_counted_document_by_document() -> None:
    before = [True, True, False, False, False]
    after = [True, False, True, True, False]
    assert Shift.of(before, after) == Shift(came=2, went=1, n=5)


@pytest.mark.parametrize("moved", range(1, 61))
def test_alike_models_raise_an_alarm_in_one_of_a_thousand_runs_at_most(moved: int) -> None:
    """Every way in which so many documents may have moved, with its exact probability."""
    alarms = [came for came in range(moved + 1) if Shift(came, moved - came, 541).rose(0.0)]
    assert math.fsum(binom.pmf(came, moved, 0.5) for came in alarms) <= ALPHA
    if moved >= 10:
        assert moved in alarms, "ten that all came are told"


def test_a_move_that_is_certain_and_small_is_no_alarm() -> None:
    assert Shift(12, 0, 541).rose(0.02)
    assert not Shift(12, 0, 541).rose(0.03)
    assert not Shift(0, 12, 541).rose(0.02), "a fall is no rise"
    assert not Shift(9, 0, 10).rose(0.02), "nine of ten may be chance"
    assert not Shift(0, 0, 0).rose(0.0)


def test_the_probability_is_that_of_all_signs() -> None:
    for came, went in itertools.product(range(6), range(6)):
        signs = itertools.product((0, 1), repeat=came + went)
        as_many = sum(sum(s) >= came for s in signs)
        assert Shift(came, went, 99).p_rise() == pytest.approx(as_many / 2 ** (came + went))


def test_the_mean_ratio_is_geometric() -> None:
    ratio, p = mean_ratio([10, 20, 40, 80], [20, 40, 80, 160])
    assert ratio == pytest.approx(2.0) and p == 0.0
    assert mean_ratio([10, 20], [20, 10])[0] == pytest.approx(1.0)
    assert mean_ratio([7, 7], [7, 7]) == (1.0, 1.0)
    ratio, p = mean_ratio([3], [9])
    assert math.isnan(ratio) and p == 1.0


@pytest.mark.parametrize("documents", [16, 541])
def test_lengths_of_alike_models_seldom_alarm(documents: int) -> None:
    """Heavy tails as answers have them: most change little, a fifth by half or twice, some end."""
    rng = np.random.default_rng(0)
    runs = 4000
    before = np.exp(rng.normal(5, 1, (runs, documents)))
    moves = np.where(
        rng.random((runs, documents)) < 0.2,
        rng.normal(0, 1, (runs, documents)),
        rng.normal(0, 0.1, (runs, documents)),
    )
    alarms = 0
    for row, move in zip(before, moves, strict=True):
        ratio, p = mean_ratio(row, row * np.exp(move))
        alarms += p <= ALPHA and abs(math.log(ratio)) > math.log(1.25)
    assert alarms / runs <= 0.002


def test_longer_answers_are_told() -> None:
    rng = np.random.default_rng(1)
    before = np.exp(rng.normal(5, 1, 541))
    ratio, p = mean_ratio(before, before * np.exp(rng.normal(math.log(1.4), 0.7, 541)))
    assert p <= ALPHA and 1.25 < ratio < 1.6
