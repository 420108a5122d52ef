"""A model that differs from itself: what is stored of it, and what a verdict says of that."""

from decimal import Decimal

import pytest
from results import perplexity, result, task

from gate import verdict
from gate.records import EarlyStop, EvalResult, Rerun
from gate.repeat import reruns
from gate.reports import repeats
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

METRIC = "inst_level_strict_acc"
RIGHT = [1.0] * 400 + [0.0] * 141
LIMITED = TaskMetric(task="ifeval", metric=METRIC, min_retention=Decimal("0.95"))


def scores(lost: int) -> list[float]:
    return [0.0] * lost + RIGHT[lost:]


def again(share: float, *, metric: str = METRIC, mean_square: float | None = None) -> Rerun:
    """Two runs of the baseline that differ on this share of 541 documents."""
    square = share if mean_square is None else mean_square
    return Rerun(
        task="ifeval", metric=metric, filter="none", runs=2, n=541, flips=share, mean_square=square
    )


def compared(lost: int, *seen: Rerun, metric: TaskMetric = LIMITED, **changes):
    base = result(task(RIGHT), reruns=seen)
    candidate = result(task(scores(lost)), format="modelopt", **changes)
    (found,) = verdict.compare(Settings(metrics=(metric,)), base, candidate, 4)
    return found


def test_two_runs_are_compared_document_by_document_and_window_by_window() -> None:
    first = result(task([1.0, 0.0, 2.0]), perplexities=[perplexity([300.0, 310.0])])
    others = [
        result(task([1.0, 1.0, 2.0]), perplexities=[perplexity([300.0, 310.0])]),
        result(task([1.0, 0.0, 0.0]), perplexities=[perplexity([301.0, 310.0])]),
    ]
    asked, read = reruns(first, others)
    assert (asked.task, asked.runs, asked.n) == ("ifeval", 3, 6)
    assert asked.flips == pytest.approx(2 / 6)
    assert asked.mean_square == pytest.approx((1 + 4) / 6)
    assert (read.metric, read.filter, read.n, read.flips) == ("domain.txt", "none", 4, 0.25)
    assert read.mean_square == pytest.approx(0.01**2 / 4), "in nats a token"


def test_a_stored_result_keeps_its_reruns(tmp_path) -> None:
    from gate import records

    stored = result(task(RIGHT), reruns=[again(0.01)])
    records.write(tmp_path / "stored.json", stored)
    assert records.read(tmp_path / "stored.json", EvalResult) == stored


@pytest.mark.parametrize(
    ("lost", "outcome", "flips"), [(12, "pass", 0.0049), (20, "pass", 0.4395), (21, "fail", 0.4395)]
)
def test_the_probability_that_a_rerun_is_judged_otherwise(lost, outcome, flips) -> None:
    found = compared(lost, again(0.02))
    assert found.outcome == outcome
    assert found.rerun_flips == pytest.approx(flips, abs=2e-4)


def test_it_is_said_beside_the_verdict_in_one_sentence() -> None:
    said = repeats.rerun(compared(12, again(0.02)))
    assert said is not None
    assert "ifeval inst_level_strict_acc on the other side of its limit in 0.5 % of cases" in said
    assert "differ on 2.0 % of documents" in said
    assert "in under 0.1 % of cases" in str(repeats.rerun(compared(0, again(0.002))))


def test_runs_that_agreed_bound_the_probability() -> None:
    found = compared(19, again(0))
    # Three in 541: a share that two runs which agree do not exclude.
    assert found.rerun_flips == pytest.approx(0.193, abs=0.001)
    said = str(repeats.rerun(found))
    assert "in at most 19.3 % of cases" in said
    assert "2 runs agreed on every document" in said


def test_scores_of_several_points_move_by_their_squares() -> None:
    single = compared(12, again(0.01))
    several = compared(12, again(0.01, mean_square=0.06))
    assert single.rerun_flips is not None and several.rerun_flips is not None
    assert several.rerun_flips > 50 * single.rerun_flips


def test_nothing_is_said_without_a_repeat_a_limit_or_all_documents() -> None:
    assert compared(12).rerun_flips is None
    assert repeats.rerun(compared(12)) is None
    advisory = TaskMetric(task="ifeval", metric=METRIC)
    assert compared(12, again(0.01), metric=advisory).rerun_flips is None
    assert compared(12, again(0.01, metric="another")).rerun_flips is None
    stop = EarlyStop(reason="settled", n_planned=541, outcome="fail", certain=True)
    stopped = result(task(scores(40)[:60]).model_copy(update={"early_stop": stop}))
    base = result(task(RIGHT), reruns=[again(0.01)])
    (found,) = verdict.compare(Settings(metrics=(LIMITED,)), base, stopped, 16)
    assert found.early_stop == stop
    assert found.rerun_flips is None


def test_a_score_that_is_no_number_leaves_no_probability() -> None:
    base = result(task(RIGHT), reruns=[again(0.01)])
    candidate = result(task([float("nan"), *RIGHT[1:]]), format="modelopt")
    (found,) = verdict.compare(Settings(metrics=(LIMITED,)), base, candidate, 4)
    assert found.outcome == "fail"
    assert found.rerun_flips is None


def texts(ratio: float, square: float):
    seen = Rerun(
        task="perplexity", metric="domain.txt", filter="none", runs=2, n=4, flips=1.0,
        mean_square=square,
    )  # fmt: skip
    text = PerplexityText(file="domain.txt")
    settings = Settings(metrics=(PerplexityMetric(perplexity=text, max_ratio=Decimal("1.1")),))
    nll = [300.0, 310.0, 305.0, 295.0]
    moved = [total + 100 * ratio for total in nll]
    base = result(perplexities=[perplexity(nll)], reruns=[seen])
    candidate = result(perplexities=[perplexity(moved)], format="modelopt")
    (found,) = verdict.compare(settings, base, candidate, 4)
    return found


def test_a_perplexity_is_told_of_where_it_is_that_close() -> None:
    far, close = texts(0.05, 1e-8), texts(0.0953, 1e-8)
    assert far.rerun_flips == pytest.approx(0, abs=1e-9)
    assert repeats.rerun(far) is None
    assert close.rerun_flips == pytest.approx(0.42, abs=0.1)
    assert "differ on 100.0 % of windows" in str(repeats.rerun(close))
