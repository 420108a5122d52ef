"""The gate's own rates, from draws of a stored pair and from runs of a model."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from results import DIGEST, perplexity, result, task

from gate import calibrate, records
from gate.errors import BaselineError
from gate.records import Calibration, EarlyStop, EvalResult
from gate.reports import calibration
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

RIGHT = [1.0] * 400 + [0.0] * 141
LIMITED = TaskMetric(task="ifeval", metric="inst_level_strict_acc", min_retention=Decimal("0.95"))
SETTINGS = Settings(metrics=(LIMITED,))


def candidate(lost: int, gained: int = 0) -> list[float]:
    return [0.0] * lost + [1.0] * (400 - lost) + [1.0] * gained + [0.0] * (141 - gained)


def stored(directory: Path, name: str, found: EvalResult) -> Path:
    path = directory / f"{name}.json"
    records.write(path, found)
    return path


def drawn(
    directory: Path, scores: Sequence[float], settings: Settings = SETTINGS, draws: int = 200
) -> Calibration:
    loose = task(RIGHT, metric="loose")
    base = stored(directory, "baseline", result(task(RIGHT), loose))
    judged = result(task(scores), loose, format="modelopt", weights_digest=DIGEST["h"])
    return calibrate.resample(stored(directory, "candidate", judged), base, settings, draws)


def test_a_candidate_far_from_the_limit_is_judged_alike_on_every_draw(tmp_path: Path) -> None:
    for lost, outcome in ((2, "pass"), (120, "fail")):
        found = drawn(tmp_path, candidate(lost))
        assert (found.verdict, found.outcomes) == (outcome, {outcome: 200})
        assert found.differing.count == 0
        assert found.differing.high == pytest.approx(0.0183, abs=1e-3), "not known to be never"


def test_a_candidate_close_to_the_limit_often_is_not(tmp_path: Path) -> None:
    """28 lost and 16 gained of 400: the net loss varies by the root of the 44 that changed."""
    found = drawn(tmp_path, candidate(28, 16), draws=400)
    assert found.verdict == "pass"
    # Net loss 12 of at most 20, with a standard deviation of 6.6: beyond it in 10 %.
    assert found.differing.count / found.differing.n == pytest.approx(0.10, abs=0.05)
    assert found.failing.count == found.differing.count
    (spread,) = found.spreads
    assert spread.metric == LIMITED.metric, "and no metric that decides nothing"
    assert spread.mean == pytest.approx(0.97, abs=0.003)
    assert spread.sd == pytest.approx(6.6 / 400, rel=0.2)
    assert found.runs == ()


def test_the_same_draws_are_made_again(tmp_path: Path) -> None:
    first, again = (drawn(tmp_path, candidate(28, 16)) for _ in range(2))
    assert (first.outcomes, first.spreads) == (again.outcomes, again.spreads)


def test_windows_of_a_text_are_drawn_too(tmp_path: Path) -> None:
    nll = [300.0 + i for i in range(16)]
    moved = [total + (20 if i % 2 else 0) for i, total in enumerate(nll)]
    text = PerplexityMetric(perplexity=PerplexityText(file="domain.txt"), max_ratio=Decimal("1.11"))
    base = stored(tmp_path, "baseline", result(perplexities=[perplexity(nll)]))
    judged = stored(tmp_path, "candidate", result(perplexities=[perplexity(moved)]))
    found = calibrate.resample(judged, base, Settings(metrics=(text,)), 200)
    assert 40 < found.outcomes["pass"] < 160
    assert found.spreads[0].metric == "domain.txt"


def test_a_model_against_itself_shows_false_alarms(tmp_path: Path) -> None:
    path = stored(tmp_path, "baseline", result(task(RIGHT)))
    found = calibrate.resample(path, path, SETTINGS, 50)
    assert found.same_model
    said = calibration.render(found)
    assert "False alarms: 0 of 50 (0.0 %, 95 % interval 0.0 to 7.1 %)" in said
    assert "False alarms" not in calibration.render(drawn(tmp_path, candidate(2), draws=5))


def test_draws_with_too_few_points_are_told_and_counted_in_no_rate(tmp_path: Path) -> None:
    scores = [1.0] * 105 + [0.0] * 100
    path = stored(tmp_path, "baseline", result(task(scores)))
    found = calibrate.resample(path, path, SETTINGS, 100)
    assert 0 < found.refused < 100
    assert found.differing.n == 100 - found.refused
    assert f"{found.refused} more draws had too few points" in calibration.render(found)


def test_a_result_that_was_stopped_early_has_no_other_documents(tmp_path: Path) -> None:
    stop = EarlyStop(reason="settled", n_planned=541, outcome="fail", certain=True)
    garbage = task([0.0] * 40).model_copy(update={"early_stop": stop})
    base = stored(tmp_path, "baseline", result(task(RIGHT)))
    judged = stored(tmp_path, "candidate", result(garbage, format="modelopt"))
    with pytest.raises(BaselineError) as error:
        calibrate.resample(judged, base, SETTINGS)
    assert "ifeval was stopped early" in error.value.message
    assert "gate eval" in error.value.hint


def test_a_calibration_is_stored_and_read_back(tmp_path: Path) -> None:
    found = drawn(tmp_path, candidate(28, 16), draws=20)
    records.write(tmp_path / "calibration.json", found)
    assert records.read(tmp_path / "calibration.json", Calibration) == found
