"""Early stopping through the driver and the verdict, on stored answers."""

import random
from contextlib import nullcontext
from decimal import Decimal

import pytest
import results

from gate import verdict
from gate.backends.replay import Replay
from gate.batching import order
from gate.evaluate import Evaluation
from gate.journal import Journal
from gate.records import EvalResult, LintResult
from gate.settings import Settings, TaskMetric
from gate.stopping import Stopping

N, RIGHT = 541, 400
METRIC = "inst_level_strict_acc"


def settings(mode: str, *, gating: int = 1, borderline: str = "point", **more) -> Settings:
    metrics = [TaskMetric(task="ifeval", metric=METRIC, min_retention=Decimal("0.95"))]
    if gating == 2:
        metrics.append(TaskMetric(task="ifeval", metric="loose", min_retention=Decimal("0.95")))
    return Settings(metrics=tuple(metrics), early_stop=mode, borderline=borderline, **more)


def stored(scores: list[float], *more: list[float], **changes: object) -> EvalResult:
    tasks = [results.task(scores), *(results.task(other, metric="loose") for other in more)]
    setup = results.setup(n_documents=len(scores))
    return results.result(*tasks, setups=(setup,), **changes)


def scores(lost: int = 0, gained: int = 0, n: int = N, right: int = RIGHT) -> list[float]:
    """A candidate's scores where the baseline has `right` first; shuffled by the order anyway."""
    wrong = n - right
    return [0.0] * lost + [1.0] * (right - lost) + [1.0] * gained + [0.0] * (wrong - gained)


def judged(mode: str, candidate: EvalResult, baseline: EvalResult, gating: int = 1, **changes):
    """Documents asked for, and the verdict."""
    chosen = settings(mode, gating=gating, **changes)
    backend = Replay(candidate, candidate.weights_digest)
    with Journal(None) as journal:
        quiet = lambda label, total: nullcontext(lambda done: None)  # noqa: E731
        run = Evaluation(backend, candidate.seed, 8, journal, quiet)
        done = run.run("ifeval", stop=Stopping(chosen, baseline, run.orders))
        result = candidate.model_copy(update={"tasks": run.task_results()})
    comparisons = verdict.compare(chosen, baseline, result, 4)
    return len(done), verdict.decide(LintResult(format="modelopt"), comparisons)


BASELINE = stored(scores())


def test_garbage_ends_a_run_at_once_in_every_mode_but_off() -> None:
    garbage = stored(scores(lost=RIGHT))
    for mode, most in {"auto": 24, "guaranteed": 24, "certain": 250}.items():
        asked, decided = judged(mode, garbage, BASELINE)
        assert asked <= most
        assert decided.outcome == "fail"
        assert f"FAIL after {asked} of 541 documents" in decided.reasons[0]
    assert judged("off", garbage, BASELINE)[0] == N


def test_a_short_task_that_passes_is_run_to_its_end_unless_it_is_asked_for() -> None:
    equal = stored(scores())
    asked, decided = judged("auto", equal, BASELINE)
    assert asked == N
    assert decided.comparisons[0].retention == 1
    asked, decided = judged("guaranteed", equal, BASELINE)
    assert asked < 300
    assert decided.outcome == "pass"
    assert "the full run agrees with 99 %" in decided.reasons[0]


def test_a_long_task_that_passes_is_stopped() -> None:
    long = scores(n=3000, right=2000)
    asked, decided = judged("auto", stored(long), stored(long))
    assert asked < 600
    assert decided.outcome == "pass"


def test_a_task_that_may_not_drop_is_run_to_its_end_unless_it_fails() -> None:
    long, limit = scores(n=3000, right=2000), {"store": "s", "max_drop_vs_released": "0.02"}
    assert judged("guaranteed", stored(long), stored(long), **limit)[0] == 3000
    garbage = stored(scores(lost=2000, n=3000, right=2000))
    assert judged("guaranteed", garbage, stored(long), **limit)[0] < 600


@pytest.mark.parametrize("seed", range(8))
def test_what_is_stopped_agrees_with_the_full_run(seed: int) -> None:
    draw = random.Random(seed)
    lost, gained = draw.choice([(0, 0), (60, 5), (100, 0), (15, 15)])
    candidate = stored(scores(lost, gained), seed=str(seed))
    full = judged("off", candidate, BASELINE)[1].outcome
    for mode in ("auto", "guaranteed", "certain"):
        assert judged(mode, candidate, BASELINE)[1].outcome == full


def test_certainty_hangs_on_no_order() -> None:
    candidate = stored(scores())
    ids = order(range(N), candidate.seed, "ifeval")
    # Evidence for a PASS comes first, and every loss after it: no random order would be like this.
    late = set(ids[300:])
    lost = [0.0 if i in late else score for i, score in enumerate(scores())]
    unlucky = stored(lost)
    assert judged("off", unlucky, BASELINE)[1].outcome == "fail"
    assert judged("guaranteed", unlucky, BASELINE)[1].outcome == "pass"
    asked, decided = judged("certain", unlucky, BASELINE)
    assert asked < N
    assert decided.outcome == "fail"
    assert "nothing can change that" in decided.reasons[0]


def test_one_metric_that_fails_ends_the_run_whatever_the_other_does() -> None:
    baseline = stored(scores(), scores())
    asked, decided = judged("auto", stored(scores(), scores(lost=RIGHT)), baseline, gating=2)
    assert asked <= 32
    assert decided.outcome == "fail"
    assert "loose: FAIL" in decided.reasons[0]
    assert f"{METRIC}: not settled" in decided.reasons[1]


def test_a_score_that_was_not_expected_leaves_it_to_the_full_run() -> None:
    halves = [0.5 if i % 2 else 0.0 for i in range(N)]
    asked, decided = judged("guaranteed", stored(halves), BASELINE)
    assert (asked, decided.outcome) == (N, "fail")


def test_an_error_rate_is_mirrored() -> None:
    def errors(count: int) -> EvalResult:
        task = results.task([1.0] * count + [0.0] * (N - count), higher_is_better=False)
        return results.result(task, setups=(results.setup(n_documents=N),))

    asked, decided = judged("auto", errors(500), errors(200))
    assert (asked < 40, decided.outcome) == (True, "fail")
    assert judged("guaranteed", errors(0), errors(200))[1].outcome == "pass"


def test_only_what_the_rule_for_borderline_results_cannot_change_ends_a_task() -> None:
    equal, garbage = stored(scores()), stored(scores(lost=RIGHT))
    for borderline, passing, failing in (("block", N, 24), ("inconclusive", N, N)):
        assert judged("guaranteed", equal, BASELINE, borderline=borderline)[0] == passing
        assert judged("guaranteed", garbage, BASELINE, borderline=borderline)[0] <= failing
        assert judged("guaranteed", garbage, BASELINE, borderline=borderline)[1].outcome == "fail"
    assert judged("auto", garbage, BASELINE, borderline="inconclusive")[0] == N
