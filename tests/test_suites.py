"""Suites: what the settings may say of them, which are run, and what they decide together."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import results
from checkpoints import build

from gate import baseline, records, schedule, settings, stopping
from gate.backends.replay import Replay
from gate.checkpoint import open_checkpoint
from gate.cli import cli
from gate.containers import CONTAINERS
from gate.errors import BaselineError, SettingsError
from gate.records import Answer, EvalResult, Report, ScoredDocument
from gate.settings import Settings, TaskMetric

ESCALATING = """
suites:
  - name: instructions
    metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]
    escalate_to: maths
  - name: maths
    metrics: [{task: gsm8k, metric: acc, min_retention: 0.95}]
"""
MEAN = """
combine: mean
min_mean_retention: 0.95
suites:
  - {name: instructions, metrics: [{task: ifeval, metric: acc}]}
  - {name: maths, metrics: [{task: gsm8k, metric: acc}]}
  - {name: facts, metrics: [{task: mmlu, metric: acc}], floor: 0.80}
"""
TIERS = """
suites:
  - {name: instructions, metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]}
  - name: maths
    metrics: [{task: gsm8k, metric: acc, min_retention: 0.95}]
    tier: advisory
"""
N, RIGHT = 541, 400
MODEL = "quantized_model"

Moved = tuple[int, int]
"""Documents lost and gained."""


class Judged(NamedTuple):
    """A report, and what was printed."""

    report: Report
    code: int
    said: str

    @property
    def asked(self) -> dict[str, int]:
        """Documents by task."""
        assert self.report.evaluation is not None
        return {result.task: len(result.samples) for result in self.report.evaluation.tasks}

    def suite(self, name: str) -> records.SuiteOutcome:
        return next(suite for suite in self.report.verdict.suites if suite.name == name)

    def comparison(self, task: str) -> records.Comparison:
        return next(found for found in self.report.verdict.comparisons if found.task == task)


Judge = Callable[..., Judged]


def scored(path: Path, moved: Mapping[str, Moved], text: str = "An answer.", **changes: object):
    """A stored result of the checkpoint at `path`: 541 documents a task, 400 of them right."""
    tasks = [
        results.task(
            [0.0] * lost + [1.0] * (RIGHT - lost) + [1.0] * gained + [0.0] * (N - RIGHT - gained),
            name=name,
            metric="acc",
        )
        for name, (lost, gained) in moved.items()
    ]
    checkpoint = open_checkpoint(path, CONTAINERS)
    answers = [Answer(doc_id=i, text=text, tokens=9, finish="stop") for i in range(N)]
    stated = {
        "setups": tuple(results.setup(task=name, n_documents=N) for name in moved),
        "weights_digest": baseline.weights_digest(checkpoint),
        "config_digest": baseline.config_digest(checkpoint),
        "tokenizer_digest": baseline.tokenizer_digest(checkpoint),
        "chat_template_sha": baseline.template_sha(checkpoint),
        "answers": dict.fromkeys(moved, answers),
        "format": "modelopt",
        "weight_bits": 8,
    }
    return results.result(*tasks, **(stated | changes))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / MODEL, layers=1)


@pytest.fixture
def judge(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Judge:
    """Judges a candidate by stored answers, through the command."""
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def check(
        text: str,
        moved: Mapping[str, Moved],
        *options: str,
        base: Mapping[str, Moved] | None = None,
        answer: str = "An answer.",
    ) -> Judged:
        Path("quant-gate.yaml").write_text(f"backend: replay\nanswers: answers.json\n{text}")
        records.write(Path("answers.json"), scored(model, moved, answer))
        none = dict.fromkeys(moved, (0, 0)) | dict(base or {})
        reference = {"weights_digest": "0" * 64, "format": None, "weight_bits": None}
        records.write(Path("baselines/base.json"), scored(model, none, answer, **reference))
        arguments = ["check", str(model), "--report", "json=report.json", *options]
        code = cli.main(arguments, standalone_mode=False)
        return Judged(records.read(Path("report.json"), Report), code, capsys.readouterr().out)

    return check


def read(text: str) -> Settings:
    return settings.parse(text.encode(), Path("quant-gate.yaml"))


def test_the_metrics_of_suites_are_those_of_the_settings() -> None:
    found = read(ESCALATING)
    assert [metric.task for metric in found.task_metrics] == ["ifeval", "gsm8k"]
    assert found.borderline == "escalate"
    assert found.reserve == {"gsm8k"}
    assert read(ESCALATING + "borderline: point\n").escalations == ()
    assert [metric.min_retention for metric in read(TIERS).task_metrics] == [
        found.suites[0].metrics[0].min_retention,
        None,
    ]
    assert [str(metric.min_retention) for metric in read(MEAN).task_metrics] == [
        "0.90",
        "0.90",
        "0.80",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("suites:", "metrics: [{task: a}]\nsuites:", "metrics and suites are both given"),
        ("name: maths", "name: instructions", "the name instructions occurs"),
        ("task: gsm8k", "task: ifeval", "the task ifeval occurs"),
        ("escalate_to: maths", "escalate_to: art", "which is no suite"),
        ("escalate_to: maths", "escalate_to: instructions", "which escalates itself"),
        ("escalate_to: maths", "budget_s: 60", "has a budget_s, but no suite escalates"),
        ("metric: acc, min_retention: 0.95}]\n    esc", "metric: acc}]\n    esc", "has no metrics"),
        (
            "- name: maths",
            "- {name: c, metrics: [{task: c, metric: a, min_retention: 0.9}], "
            "escalate_to: maths}\n  - name: maths",
            "so does another suite",
        ),
        (
            "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]",
            "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}, "
            "{task: ifeval, metric: loose, min_retention: 0.95}]",
            "has 2 metrics with a limit",
        ),
        ("escalate_to: maths", "escalate_to: maths\n    floor: 0.96", "the floor of instructions"),
        ("- name: maths", "- name: maths\n    tier: advisory", "maths needs tier: gating"),
        ("suites:", "combine: mean\nsuites:", "min_mean_retention belong together"),
        ("suites:", "combine: mean\nmin_mean_retention: 0.9\nsuites:", "a min_retention, which"),
        ("name: maths", "floor: 1.1\n    name: maths", "/suites/1/floor"),
        ("name: maths", "budget_s: .nan\n    name: maths", "/suites/1/budget_s"),
        ("name: maths", "name: ''", "/suites/1/name"),
    ],
)
def test_suites_that_contradict_themselves_are_refused(old: str, new: str, said: str) -> None:
    assert ESCALATING.count(old) >= 1
    with pytest.raises(SettingsError) as error:
        read(ESCALATING.replace(old, new, 1))
    assert said in error.value.message


def test_suites_belong_to_what_names_them() -> None:
    for text, said in (
        ("borderline: escalate\n", "needs a suite with escalate_to"),
        ("combine: mean\nmin_mean_retention: 0.9\n", "combine: mean needs suites"),
        (MEAN.replace("floor: 0.80", "escalate_to: maths"), "escalate_to belongs to combine: each"),
        (MEAN.split("  - {name: maths")[0], "two gating suites"),
    ):
        with pytest.raises(SettingsError) as error:
            read(text)
        assert said in error.value.message


def test_a_threshold_replaces_what_decides(tmp_path: Path) -> None:
    from decimal import Decimal

    path = tmp_path / "quant-gate.yaml"
    path.write_text(MEAN)
    found = settings.load(path, threshold=Decimal("0.99"))[0]
    assert found.min_mean_retention == Decimal("0.99")
    assert {str(metric.min_retention) for metric in found.task_metrics} == {"0.90", "0.80"}


def test_an_advisory_suite_decides_nothing_and_shows_its_limit(judge: Judge) -> None:
    judged = judge(TIERS, {"ifeval": (0, 0), "gsm8k": (300, 0)})
    assert judged.code == 0
    assert judged.asked == {"ifeval": N, "gsm8k": N}
    maths = judged.suite("maths")
    assert (maths.outcome, str(maths.limit), maths.note) == (None, "0.95", "beyond its limit")
    assert judged.comparison("gsm8k").threshold is None
    assert "beyond its limit" in " ".join(judged.said.split())
    assert judge(TIERS, {"ifeval": (300, 0), "gsm8k": (0, 0)}).code == 1


def test_a_suite_in_reserve_is_not_run_where_it_is_not_needed(judge: Judge) -> None:
    for moved, code in (((0, 0), 0), ((300, 0), 1), ((90, 10), 1)):
        judged = judge(ESCALATING, {"ifeval": moved, "gsm8k": (0, 0)})
        assert judged.report.evaluation is not None
        assert "gsm8k" not in judged.report.evaluation.answers, "not even by the canary"
        assert judged.code == code
        assert judged.suite("maths").note == "was not needed"
        assert "Not run" not in judged.said


@pytest.mark.parametrize(
    ("first", "second", "code", "deciding"),
    [
        ((36, 10), (14, 0), 0, "pooled"),  # 26 + 14 of 20 + 20, both above their floor
        ((36, 10), (15, 0), 1, "pooled"),
        ((36, 16), (60, 30), 1, "pooled"),  # the first passes alone: it is borderline all the same
        ((36, 10), (41, 0), 1, "gsm8k"),  # below the floor of the second
    ],
)
def test_a_borderline_suite_is_decided_with_the_next(
    judge: Judge, first: Moved, second: Moved, code: int, deciding: str
) -> None:
    judged = judge(ESCALATING, {"ifeval": first, "gsm8k": second}, "--full")
    assert judged.code == code
    assert judged.asked == {"ifeval": N, "gsm8k": N}
    both = judged.comparison("pooled")
    assert (both.budget, both.net_loss) == (40, first[0] - first[1] + second[0] - second[1])
    assert str(judged.comparison("ifeval").threshold) == "0.90"
    assert judged.suite("maths").note == "decided together with instructions"
    failed = [c.task for c in judged.report.verdict.comparisons if c.outcome == "fail"]
    assert (deciding in failed) == bool(code)
    if code == 0:
        reason = judged.report.verdict.reasons[0]
        assert reason.startswith("instructions was borderline, so maths was run too")


def test_a_suite_that_has_failed_makes_escalation_needless(judge: Judge) -> None:
    text = ESCALATING + (
        "  - {name: facts, metrics: [{task: mmlu, metric: acc, min_retention: 0.95}]}\n"
    )
    moved: dict[str, Moved] = {"ifeval": (36, 10), "gsm8k": (0, 0), "mmlu": (0, 0)}
    assert judge(text, moved).asked.keys() == {"ifeval", "gsm8k", "mmlu"}
    judged = judge(f"early_stop: off\n{text}", moved | {"mmlu": (300, 0)})
    assert judged.code == 1
    assert judged.asked.keys() == {"ifeval", "mmlu"}


def test_the_point_decides_where_the_settings_say_so(judge: Judge) -> None:
    judged = judge(ESCALATING + "borderline: point\n", {"ifeval": (36, 10), "gsm8k": (0, 0)})
    assert (judged.code, "gsm8k" in judged.asked) == (1, False)


def test_a_suite_in_reserve_ends_early_below_its_floor_alone(judge: Judge) -> None:
    judged = judge(ESCALATING, {"ifeval": (36, 16), "gsm8k": (400, 0)})
    assert judged.code == 1
    assert judged.asked["gsm8k"] < 40
    found = judged.comparison("gsm8k")
    assert (str(found.threshold), found.budget) == ("0.90", 40)
    # Lost as it is alone, the two together could still pass.
    assert judge(ESCALATING, {"ifeval": (36, 16), "gsm8k": (30, 0)}).asked["gsm8k"] == N


class Clock:
    """Seconds that pass only while documents are asked, one each."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        fake = SimpleNamespace(monotonic=lambda: self.now)
        patch.setattr(schedule, "time", fake)
        patch.setattr(stopping, "time", fake)
        asked = Replay.score

        def slow(replay: Replay, task: str, doc_ids: list[int]) -> list[ScoredDocument]:
            self.now += len(doc_ids) * (2 if task == "gsm8k" else 1)
            return asked(replay, task, doc_ids)

        patch.setattr(Replay, "score", slow)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    yield Clock(monkeypatch)


@pytest.mark.parametrize(
    ("budget", "asked", "why"),
    [(500, None, "about 541 s are needed"), (800, 400, "the 800 s that it may take were up")],
)
def test_a_suite_that_takes_too_long_leaves_the_point_to_decide(
    judge: Judge, clock: Clock, budget: int, asked: int | None, why: str
) -> None:
    text = f"{ESCALATING}    budget_s: {budget}\n"
    for moved, code in (((36, 10), 1), ((26, 10), 0)):
        judged = judge(text, {"ifeval": moved, "gsm8k": (0, 0)})
        assert judged.code == code
        assert judged.asked.get("gsm8k") == asked
        assert why in judged.suite("maths").note
        (concern,) = judged.report.verdict.concerns
        assert "instructions decides alone" in concern.message and why in concern.message
        assert str(judged.comparison("ifeval").threshold) == "0.95"
    if asked is not None:
        assert "not finished" in " ".join(judged.said.split())


def test_time_enough_changes_nothing(judge: Judge, clock: Clock) -> None:
    judged = judge(f"{ESCALATING}    budget_s: 1200\n", {"ifeval": (36, 10), "gsm8k": (0, 0)})
    assert judged.code == 0
    assert not judged.report.verdict.concerns


def test_what_an_early_stop_saved_is_told(judge: Judge, clock: Clock) -> None:
    text = "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]\n"
    judged = judge(text, {"ifeval": (400, 0)})
    stop = judged.comparison("ifeval").early_stop
    assert stop is not None and stop.seconds_saved == N - judged.asked["ifeval"]
    assert f"about {stop.seconds_saved // 60:.0f} min" in judged.said


@pytest.mark.parametrize(
    ("moved", "code", "deciding"),
    [
        ({"ifeval": (36, 0), "gsm8k": (20, 0), "mmlu": (4, 0)}, 0, None),  # 0.91 + 0.95 + 0.99
        ({"ifeval": (36, 0), "gsm8k": (20, 0), "mmlu": (5, 0)}, 1, "mean"),
        ({"ifeval": (41, 0), "gsm8k": (0, 0), "mmlu": (0, 0)}, 1, "ifeval"),
        ({"ifeval": (0, 0), "gsm8k": (0, 0), "mmlu": (60, 0)}, 0, None),  # its floor is 0.80
    ],
)
def test_the_mean_of_suites_decides_above_their_floors(
    judge: Judge, moved: Mapping[str, Moved], code: int, deciding: str | None
) -> None:
    judged = judge(MEAN, moved, "--full")
    assert judged.code == code
    failed = [c.task for c in judged.report.verdict.comparisons if c.outcome == "fail"]
    assert failed == ([deciding] if deciding else [])
    if code == 0:
        assert judged.report.verdict.reasons[0].startswith("on average the suites keep 0.95")
    kept = [1 - (lost - gained) / RIGHT for lost, gained in moved.values()]
    assert judged.comparison("mean").retention == pytest.approx(sum(kept) / 3)


def test_a_mean_is_stopped_by_a_floor_and_by_no_success(judge: Judge) -> None:
    text = f"early_stop: guaranteed\n{MEAN}"
    fine = dict.fromkeys(("ifeval", "gsm8k", "mmlu"), (0, 0))
    assert set(judge(text, fine).asked.values()) == {N}
    judged = judge(text, fine | {"ifeval": (400, 0)})
    assert judged.code == 1
    assert judged.asked.keys() == {"ifeval"} and judged.asked["ifeval"] < 40
    assert judged.suite("maths").note == "not run"


def test_the_table_of_suites_is_in_every_report(judge: Judge) -> None:
    moved = {"ifeval": (36, 10), "gsm8k": (14, 0)}
    hostile = ESCALATING.replace("maths", "'a|b @all <i> ::error::x'")
    judged = judge(hostile, moved, "--report", "markdown=r.md", "--report", "github=r.gh")
    assert judged.said.startswith("PASS")
    markdown = Path("r.md").read_text()
    assert "decided together with instructions" in markdown
    assert "decided by" in judged.said and "decided by" in markdown
    outside_of_code = re.sub(r"`[^`]*`", "", markdown)
    assert "a|b" not in markdown and "<i>" not in outside_of_code and "@all" not in outside_of_code
    assert "\n::error" not in judged.said + Path("r.gh").read_text()


MIN_SCORE = "metrics: [{task: ifeval, metric: acc, min_score: 0.70}]\n"
"""0.70 of 541 documents: 379 points at least."""


@pytest.mark.parametrize(("lost", "code"), [(21, 0), (22, 1)])
def test_an_absolute_floor_decides_to_the_point(judge: Judge, lost: int, code: int) -> None:
    judged = judge(MIN_SCORE, {"ifeval": (lost, 0)})
    assert judged.code == code
    found = judged.comparison("ifeval")
    assert (found.budget, str(found.min_score)) == (21, "0.70")
    assert f"may lose 21 net to a score of 0.70, lost {lost}" in judged.said
    both = judge(MIN_SCORE.replace("min", "min_retention: 0.9, min"), {"ifeval": (lost, 0)})
    assert both.code == code
    laxer = judge(MIN_SCORE.replace("min", "min_retention: 0.96, min"), {"ifeval": (lost, 0)})
    assert laxer.code == 1 and laxer.comparison("ifeval").budget == 16


def test_an_absolute_floor_ends_a_run_early(judge: Judge) -> None:
    judged = judge(MIN_SCORE, {"ifeval": (400, 0)})
    assert judged.code == 1
    assert judged.asked["ifeval"] < 100


def test_two_equally_broken_runs_do_not_pass(judge: Judge) -> None:
    plain = "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]\n"
    same: dict[str, Moved] = {"ifeval": (0, 0)}
    for answer in ("", "the the the " * 200):
        with pytest.raises(BaselineError) as error:
            judge(plain, same, answer=answer)
        assert "541 of its 541 answers to ifeval" in error.value.message
        assert error.value.exit_code == 3
        assert judge(plain.replace("}]", ", min_score: 0.5}]"), same, answer=answer).code == 0
    with pytest.raises(BaselineError) as error:
        judge(MIN_SCORE, {"ifeval": (200, 0)}, base={"ifeval": (200, 0)})
    assert "reaches 0.370, and at least 0.70 is required" in error.value.message


def test_answers_that_do_not_end_are_no_sign_of_a_broken_model(model: Path) -> None:
    from gate import verdict

    unending = [Answer(doc_id=i, text="On and on", tokens=9, finish="length") for i in range(N)]
    stored = scored(model, {"ifeval": (0, 0)}, answers={"ifeval": unending})
    verdict.check_baseline(
        read("metrics: [{task: ifeval, metric: acc, min_retention: 0.9}]"), stored
    )


@pytest.mark.parametrize("nll", [800.0, float("nan"), float("inf")])
def test_a_perplexity_that_no_sound_model_has_is_no_baseline(nll: float) -> None:
    from gate import verdict

    found = read("metrics: [{perplexity: {file: domain.txt}, max_ratio: 1.1}]")
    broken = results.result(perplexities=[results.perplexity([nll] * 3)])
    with pytest.raises(BaselineError) as error:
        verdict.check_baseline(found, broken)
    assert "perplexity on domain.txt" in error.value.message
    verdict.check_baseline(found, results.result(perplexities=[results.perplexity([600.0] * 3)]))


@pytest.mark.parametrize(("gained", "told"), [(27, False), (28, True)])
def test_an_implausible_gain_is_told_and_decides_nothing(
    judge: Judge, gained: int, told: bool
) -> None:
    text = "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]\n"
    judged = judge(text, {"ifeval": (0, gained)}, "--report", "github=r.gh")
    assert judged.code == 0
    assert ("::warning title=implausible-gain::" in Path("r.gh").read_text()) == told
    assert [c.kind for c in judged.report.verdict.concerns] == ["implausible-gain"] * told
    lines = judged.said.splitlines()
    assert any("5.2 points better than the original" in line for line in lines[2:4]) == told


def test_a_score_of_which_less_is_better_has_no_least_one(model: Path) -> None:
    from gate import verdict

    task = results.task([1.0] * 300, higher_is_better=False)
    metric = TaskMetric(task="ifeval", metric=task.metric, min_score="0.5")
    with pytest.raises(SettingsError):
        verdict.check_baseline(Settings(metrics=(metric,)), results.result(task))


def test_the_baseline_holds_the_reserve_before_a_model_is_loaded(judge: Judge) -> None:
    with pytest.raises(BaselineError):
        judge(ESCALATING, {"ifeval": (0, 0), "gsm8k": (0, 0)}, base={"gsm8k": (390, 0)})


def test_a_score_that_is_no_number_fails_both(model: Path) -> None:
    from gate import verdict

    none = {"ifeval": (0, 0), "gsm8k": (0, 0), "mmlu": (0, 0)}
    stored = scored(model, none)
    broken = scored(model, none | {"ifeval": (36, 16)})
    sample = broken.tasks[1].samples[0].model_copy(update={"score": float("nan")})
    task = broken.tasks[1].model_copy(update={"samples": (sample, *broken.tasks[1].samples[1:])})
    broken = broken.model_copy(update={"tasks": (broken.tasks[0], task, broken.tasks[2])})
    for text, together in ((ESCALATING, "pooled"), (MEAN, "mean")):
        found = {c.task: c for c in verdict.compare(read(text), stored, broken, 8)}
        assert (found["gsm8k"].outcome, found[together].outcome) == ("fail", "fail")


def test_the_files_of_every_suite_belong_to_the_policy() -> None:
    from gate import policy

    text = TIERS.replace("task: gsm8k", "task: gsm8k, documents: maths.jsonl")
    assert "maths.jsonl" in policy.named(read(text)).files


def test_stored_results_are_compared_by_the_same_rules(model: Path) -> None:
    from gate import verdict

    stored = scored(model, {"ifeval": (0, 0), "gsm8k": (0, 0)})
    clear: EvalResult = scored(model, {"ifeval": (0, 0), "gsm8k": (100, 0)})
    found = {c.task: c for c in verdict.compare(read(ESCALATING), stored, clear, 8)}
    assert (found["ifeval"].outcome, found["gsm8k"].outcome) == ("pass", None)
