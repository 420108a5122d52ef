"""A model whose answers hang on who shares its batch: repeated, calibrated, killed, resumed."""

import random
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import build
from click.testing import CliRunner
from results import result, setup, task

from gate import calibrate, check, records, terminal
from gate.backends import BACKENDS
from gate.backends.replay import Replay
from gate.cli import cli
from gate.drift import Reading
from gate.errors import SettingsError
from gate.records import Calibration, ScoredDocument
from gate.reports import calibration
from gate.request import Request
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

N, CHANCE = 240, 180
METRIC = "inst_level_strict_acc"


class Chance(Replay):
    """Most of its answers are right or wrong by chance: the same for the same batch.

    Attributes:
        asked: Batches, over all of its kind.
        most: How many it answers before it is killed.
        right: Share of those answers that are right; None for every other one, in any batch.
    """

    asked: list[tuple[int, ...]]
    most = 10**6
    right: float | None = 0.46

    def __init__(self, **_: object) -> None:
        one = setup(n_documents=N, think="strip")
        stored = result(task([1.0] * N), setups=(one,))
        super().__init__(stored, stored.weights_digest)

    def prompt(self, task: str, doc_id: int) -> str:
        return "x" * doc_id

    def token_ids(self, text: str) -> np.ndarray:
        return np.arange(len(text), dtype=np.int64)

    def read(self, windows: np.ndarray, *, top: int = 0, **_: object) -> Reading:
        reading = Reading.empty(*windows.shape, top, 0)
        reading.logprobs[:] = -3.0 - 0.001 * windows[0, 0]
        reading.top_ids[:], reading.top_logprobs[:] = 0, -3.0
        return reading

    def rounding_floor(self, token_ids: np.ndarray) -> None:
        return None

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        if len(self.asked) >= self.most:
            raise KeyboardInterrupt
        type(self).asked.append(tuple(doc_ids))
        draw = random.Random(repr(tuple(doc_ids)))
        found = []
        for document in super().score(task, doc_ids):
            odd = bool(document.doc_id % 2)
            luck = odd if self.right is None else draw.random() < self.right
            right = document.doc_id >= CHANCE or luck
            points = document.points[0].model_copy(update={"score": float(right)})
            found.append(document.model_copy(update={"points": (points,)}))
        return found


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Any":
    """Asks for a tiny checkpoint to be measured by `Chance`; settings may be changed."""
    monkeypatch.setitem(BACKENDS, "hf", Chance)
    monkeypatch.setattr("gate.run.Harness.of", lambda *_: None)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**40))
    monkeypatch.setattr(Chance, "asked", [], raising=False)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    path = build(tmp_path / "tiny", None)

    def make(**changes: Any) -> Request:
        metric = TaskMetric(task="ifeval", metric=METRIC, min_retention=Decimal("0.96"))
        settings = Settings(**{"metrics": (metric,), "canary_prompts": 0} | changes)
        return Request(
            checkpoint=str(path),
            settings=settings,
            root=tmp_path,
            command="gate",
            progress=terminal.silent,
            store=lambda record: None,
            baseline=tmp_path / "baseline.json",
        )

    return make


@pytest.fixture
def stored(asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline of 150 points, of which six may be lost."""
    monkeypatch.setattr(Chance, "right", None)
    records.write(tmp_path / "baseline.json", check.measure(asked()))
    monkeypatch.setattr(Chance, "right", 0.46)


def test_a_repeat_asks_in_other_batches_and_stores_how_many_answers_changed(asked) -> None:
    plain = check.measure(asked())
    first = list(Chance.asked)
    Chance.asked.clear()
    found = check.measure(asked(), runs=3)
    assert found.tasks == plain.tasks, "what is kept is the first run's"
    assert Chance.asked[: len(first)] == first
    others = Chance.asked[len(first) :]
    assert sorted(i for batch in others for i in batch) == sorted([*range(N)] * 2)
    assert not set(map(frozenset, others)) & set(map(frozenset, first))
    (seen,) = found.reruns
    assert (seen.task, seen.metric, seen.runs, seen.n) == ("ifeval", METRIC, 3, 2 * N)
    # Of 180 answers by chance, half are others in another run.
    assert seen.flips == seen.mean_square == pytest.approx(0.375, abs=0.08)


def test_the_few_prompts_of_one_batch_are_asked_in_several(asked) -> None:
    check.measure(asked(batch_size=N), runs=2)
    assert [len(batch) for batch in Chance.asked[:1]] == [N]
    assert max(len(batch) for batch in Chance.asked[1:]) < N


def test_texts_are_read_again_too(asked, tmp_path: Path) -> None:
    (tmp_path / "domain.txt").write_text("x" * 200)
    text = PerplexityText(file="domain.txt", window=10, windows=8)
    request = asked(metrics=(PerplexityMetric(perplexity=text),))
    (*_, seen) = check.measure(request, runs=2).reruns
    assert (seen.task, seen.metric, seen.n) == ("perplexity", "domain.txt", 8)
    assert seen.flips == 1, "in another order, whose first window is another one"


def test_a_killed_repeat_does_not_measure_the_first_run_again(asked, monkeypatch) -> None:
    whole = check.measure(asked(), runs=2)
    batches = list(Chance.asked)
    Chance.asked.clear()
    monkeypatch.setattr(Chance, "most", len(batches) - 5)
    with pytest.raises(KeyboardInterrupt):
        check.measure(asked(), runs=2)
    monkeypatch.setattr(Chance, "most", 10**6)
    resumed = check.measure(asked(), runs=2)
    assert Chance.asked == batches, "each batch once, in the same order"
    assert resumed.tasks == whole.tasks
    assert resumed.reruns == whole.reruns


def test_a_finished_repeat_leaves_no_journal(asked, tmp_path: Path) -> None:
    check.measure(asked(), runs=2)
    assert list((tmp_path / "cache" / "journal").iterdir()) == []


def test_a_calibration_counts_the_verdicts_of_every_run(asked, stored) -> None:
    found = calibrate.calibrate(asked(early_stop="guaranteed"), 12)
    assert found.same_model
    assert len(found.runs) == sum(found.outcomes.values()) == 12
    assert {run.documents for run in found.runs} == {N}
    assert {run.outcome for run in found.runs} == {"pass", "fail"}
    assert found.failing.count == sum(run.outcome == "fail" for run in found.runs)
    assert found.differing.count == min(found.outcomes.values())
    (spread,) = found.spreads
    # The root of 180 * 0.46 * 0.54 points of 150.
    assert spread.sd == pytest.approx(6.7 / 150, rel=0.5)
    assert spread.mean == pytest.approx(0.95, abs=0.04)
    disagreed = found.early_disagreed
    assert disagreed is not None and disagreed.n == 12
    assert disagreed.count == sum(r.early_outcome != r.outcome for r in found.runs)
    assert min(run.early_documents or 0 for run in found.runs) < N


def test_the_first_run_is_the_one_that_check_makes(asked, stored) -> None:
    (first, *_) = calibrate.calibrate(asked(), 2).runs
    assert check.check(asked()).verdict.reasons[0].startswith(first.reason[:20])
    judged = check.check(asked(early_stop="off")).verdict
    assert (judged.outcome, judged.reasons[0]) == (first.outcome, first.reason)


def test_stopping_early_is_asked_when_a_check_would_ask(asked, stored, monkeypatch) -> None:
    monkeypatch.setattr(Chance, "right", 0.0)
    judged = check.check(asked(early_stop="guaranteed", canary_prompts=64)).evaluation
    assert judged is not None
    (run,) = calibrate.calibrate(asked(early_stop="guaranteed", canary_prompts=64), 1).runs
    assert run.early_documents == len(judged.tasks[0].samples) < N


def test_nothing_is_said_of_stopping_early_where_it_is_off(asked, stored) -> None:
    found = calibrate.calibrate(asked(early_stop="off"), 2)
    assert found.early_disagreed is None
    assert found.runs[0].early_outcome is None
    assert "Stopping early" not in calibration.render(found)


def test_the_same_runs_are_made_again(asked, stored) -> None:
    first, again = (calibrate.calibrate(asked(), 3) for _ in range(2))
    assert [run.reason for run in first.runs] == [run.reason for run in again.runs]
    assert first.spreads == again.spreads


def test_stored_answers_are_not_run_again(asked, stored) -> None:
    replayed = asked(backend="replay", answers="baseline.json")
    for again in (lambda: calibrate.calibrate(replayed, 2), lambda: check.measure(replayed, 2)):
        with pytest.raises(SettingsError, match="however often"):
            again()


def test_the_command_exits_with_zero_whatever_the_verdicts_were(
    asked, stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quant-gate.yaml").write_text(
        f"version: 1\nmetrics:\n  - {{task: ifeval, metric: {METRIC}, min_retention: 0.96}}\n"
    )
    command = ["calibrate", "tiny", "--baseline", "baseline.json", "--runs", "9", "-o", "out.json"]
    done = CliRunner().invoke(cli, command, standalone_mode=False, catch_exceptions=False)
    assert (done.exit_code, done.return_value) == (0, 0)
    found = records.read(tmp_path / "out.json", Calibration)
    assert found.failing.count > 0
    assert f"False alarms: {found.failing.count} of 9" in done.output
    assert "Stopping early" in done.output


def test_draws_need_a_baseline_that_is_named() -> None:
    done = CliRunner().invoke(cli, ["calibrate", "result.json", "--resample"])
    assert done.exit_code == 2
    assert "name --baseline" in done.output
