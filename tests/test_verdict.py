"""The deciding rules, through `compare` and `decide`."""

import math
from decimal import Decimal

import pytest
from results import perplexity, result, size, task

from gate import verdict
from gate.errors import BaselineError, BaselineMismatchError, SettingsError
from gate.records import CanaryAnswer, Finding, LintResult, RuleInfo
from gate.settings import PerplexityMetric, PerplexityText, Settings, TaskMetric

LINT = LintResult(
    format="modelopt",
    algorithms=("NVFP4",),
    rules_run=(RuleInfo(id="missing-scale", severity="error", summary="a scale is missing"),),
)


def gating(limit: str | None = "0.95", metric: str | None = "inst_level_strict_acc", **changes):
    retention = Decimal(limit) if limit else None
    return Settings(
        metrics=(TaskMetric(task="ifeval", metric=metric, min_retention=retention, **changes),)
    )


def tripwire(limit):
    text = PerplexityText(file="domain.txt")
    return Settings(metrics=(PerplexityMetric(perplexity=text, max_ratio=limit),))


def scores(right: int, wrong: int = 141, lost: int = 0, gained: int = 0) -> list[float]:
    """A baseline's scores with some lost and some gained."""
    return [0.0] * lost + [1.0] * (right - lost) + [1.0] * gained + [0.0] * (wrong - gained)


def run(settings, baseline, candidate, bits=4, lint=LINT):
    base = baseline if hasattr(baseline, "model") else result(task(baseline))
    cand = candidate if hasattr(candidate, "model") else result(task(candidate), format="modelopt")
    comparisons = verdict.compare(settings, base, cand, bits)
    return comparisons, verdict.decide(lint, comparisons)


@pytest.mark.parametrize(("lost", "gained", "outcome"), [(36, 16, "pass"), (37, 16, "fail")])
def test_the_budget_decides_to_the_point(lost, gained, outcome):
    (comparison,), decided = run(gating(), scores(400), scores(400, lost=lost, gained=gained))
    assert comparison.budget == 20
    assert comparison.net_loss == lost - gained
    assert decided.outcome == comparison.outcome == outcome
    assert "may lose 20 net, lost" in decided.reasons[0]
    assert f"({lost} lost, {gained} gained)" in decided.reasons[0]
    assert (decided.fix is None) == (outcome == "pass")


def test_a_multiple_of_ten_keeps_its_whole_budget():
    (comparison,), decided = run(gating("0.9"), scores(400), scores(400, lost=40))
    assert comparison.budget == 40
    assert decided.outcome == "pass"


def test_the_limit_is_kept_as_written():
    (comparison,), _ = run(gating("0.950"), scores(400), scores(400))
    assert str(comparison.threshold) == "0.950"


def test_fractional_scores_are_not_rounded_to_whole_points():
    baseline = [0.5] * 218  # 109 points: 5.45 may be lost
    candidate = [0.5] * 207 + [0.0] * 10 + [0.1]
    (comparison,), decided = run(gating(), baseline, candidate)
    assert comparison.net_loss == pytest.approx(5.4)
    assert comparison.retention > 0.95
    assert decided.outcome == "pass"


def test_an_error_rate_is_mirrored():
    def errors(count):
        return result(task([1.0] * count + [0.0] * (541 - count), higher_is_better=False))

    (comparison,), decided = run(gating(), errors(200), errors(210))
    assert (comparison.budget, comparison.net_loss, decided.outcome) == (10, 10, "pass")
    assert run(gating(), errors(200), errors(211))[1].outcome == "fail"
    assert run(gating(), errors(200), errors(0))[1].outcome == "pass"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails(bad):
    _, decided = run(gating(), scores(400), [bad, *scores(400)[1:]])
    assert decided.outcome == "fail"
    assert "not a number" in decided.reasons[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_perplexity_that_is_no_number_fails(bad):
    base = result(perplexities=[perplexity([300.0, 310.0])])
    cand = result(perplexities=[perplexity([bad, 310.0])], format="modelopt")
    _, decided = run(tripwire(Decimal("10")), base, cand)
    assert decided.outcome == "fail"


def test_a_small_budget_is_refused_with_the_way_out():
    for check in (
        lambda: verdict.check_baseline(gating(), result(task(scores(99)))),
        lambda: run(gating(), scores(99), scores(99)),
    ):
        with pytest.raises(BaselineError) as error:
            check()
        assert error.value.exit_code == 3
        assert "99 points" in error.value.message
        assert "needs 100 points" in error.value.hint
        assert "advisory" in error.value.hint
    verdict.check_baseline(gating(), result(task(scores(100))))
    verdict.check_baseline(gating(None), result(task(scores(3))))


def test_asking_for_everything_leaves_no_budget():
    with pytest.raises(BaselineError) as error:
        verdict.check_baseline(gating("1"), result(task(scores(400))))
    assert "less than the whole" in error.value.hint


def test_an_advisory_metric_decides_nothing():
    (comparison,), decided = run(gating(None), scores(400), scores(400, lost=400))
    assert comparison.outcome is None
    assert comparison.budget is None
    assert decided.outcome == "pass"
    assert "no metric has a limit" in decided.reasons[0]


def test_every_gating_metric_must_pass():
    names = ("first", "second")
    settings = Settings(
        metrics=tuple(
            TaskMetric(task="ifeval", metric=name, min_retention=Decimal("0.95")) for name in names
        )
    )
    base = result(*(task(scores(400), metric=name) for name in names))
    cand = result(task(scores(400), metric="first"), task(scores(400, lost=30), metric="second"))
    comparisons, decided = run(settings, base, cand)
    assert [c.outcome for c in comparisons] == ["pass", "fail"]
    assert decided.outcome == "fail"
    assert decided.reasons == (comparisons[1].reason,)


def test_without_a_metric_all_are_advisory_and_a_limit_given_beside_it_stays():
    settings = Settings(
        metrics=(
            TaskMetric(task="ifeval", metric="a", min_retention=Decimal("0.95")),
            TaskMetric(task="ifeval"),
        )
    )
    both = result(task(scores(400), metric="a"), task(scores(300), metric="b"))
    comparisons, _ = run(settings, both, both)
    assert [(c.metric, c.outcome) for c in comparisons] == [("a", "pass"), ("b", None)]


def test_a_metric_is_named_with_its_filter():
    both = result(
        task(scores(400), metric="exact_match", filter="strict-match"),
        task(scores(350), metric="exact_match", filter="flexible-extract"),
    )
    (comparison,), _ = run(gating(metric="exact_match", filter="flexible-extract"), both, both)
    assert comparison.metric == "exact_match,flexible-extract"
    assert comparison.baseline == pytest.approx(350 / 491)


@pytest.mark.parametrize("field", ["doc_hash", "prompt_hash"])
def test_pairs_must_agree(field):
    base, cand = result(task(scores(400))), result(task(scores(400)))
    samples = list(cand.tasks[0].samples)
    for index in (17, 30):
        samples[index] = samples[index].model_copy(update={field: "f" * 64})
    changed = cand.tasks[0].model_copy(update={"samples": tuple(samples)})
    with pytest.raises(BaselineMismatchError) as error:
        run(gating(), base, cand.model_copy(update={"tasks": (changed,)}))
    assert "document 17" in error.value.message
    assert field in error.value.message


def test_a_shorter_run_is_no_pair():
    with pytest.raises(BaselineMismatchError, match="541 documents, the candidate 540"):
        run(gating(), scores(400), scores(400)[:-1])


def test_a_metric_that_the_baseline_lacks_is_named_with_the_command():
    with pytest.raises(BaselineMismatchError) as error:
        run(gating(), result(), result(task(scores(400))))
    assert "ifeval inst_level_strict_acc" in error.value.message
    assert "gate eval acme/model@0e9e39f249a1 -o baselines/model.json" in error.value.hint
    with pytest.raises(BaselineMismatchError, match=r"perplexity on domain\.txt"):
        run(tripwire(Decimal("1.1")), result(), result(perplexities=[perplexity([1.0, 2.0])]))


def test_a_metric_that_the_task_lacks_is_a_settings_error():
    with pytest.raises(SettingsError, match="it has: inst_level_strict_acc"):
        run(gating(None, metric="accuracy"), scores(400), scores(400))


@pytest.mark.parametrize(
    ("bits", "format", "limit"),
    [(16, None, "1.02"), (None, None, "1.02"), (8, "modelopt", "1.02"), (7, "gguf", "1.15"),
     (4, "modelopt", "1.15")],
)  # fmt: skip
def test_the_tripwire_follows_the_weight_bits(bits, format, limit):
    base = result(perplexities=[perplexity([300.0, 310.0])])
    (comparison,), _ = run(
        tripwire("by-weight-bits"), base, base.model_copy(update={"format": format}), bits
    )
    assert str(comparison.threshold) == limit


@pytest.mark.parametrize("bits", [3, 2, 0, None])
def test_below_four_bits_a_limit_must_be_given(bits):
    base = result(perplexities=[perplexity([300.0, 310.0])])
    with pytest.raises(SettingsError, match="no usual limit") as error:
        run(tripwire("by-weight-bits"), base, base.model_copy(update={"format": "gguf"}), bits)
    assert "max_ratio" in error.value.hint


def shifted(ratio: float):
    """A candidate whose perplexity is `ratio` times the baseline's, window by window."""
    nll = [300.0 + i for i in range(8)]
    moved = [x + 100 * math.log(ratio) + (-1) ** i * 0.01 for i, x in enumerate(nll)]
    base = result(perplexities=[perplexity(nll)])
    return base, result(perplexities=[perplexity(moved)], format="modelopt")


def test_perplexity_decides_at_its_limit():
    (comparison,), decided = run(tripwire(Decimal("1.10")), *shifted(1.0998))
    assert decided.outcome == "pass"
    assert comparison.retention == pytest.approx(1.0998)
    (comparison,), decided = run(tripwire(Decimal("1.10")), *shifted(1.1002))
    assert (decided.outcome, decided.stage) == ("fail", "perplexity")
    assert decided.reasons[0].startswith("perplexity on domain.txt is 1.1002 times")
    assert "at most 1.10 is allowed" in decided.reasons[0]
    assert "NVFP4" in decided.fix


def test_the_baseline_against_itself_has_ratio_one():
    base, _ = shifted(1.5)
    (comparison,), decided = run(tripwire(Decimal("1")), base, base)
    assert (comparison.retention, decided.outcome) == (1.0, "pass")


def test_other_tokens_are_not_compared():
    base, cand = shifted(1.0)
    other = cand.perplexities[0].model_copy(update={"tokens_digest": "0" * 64})
    with pytest.raises(BaselineMismatchError, match="tokens_digest"):
        run(tripwire(None), base, cand.model_copy(update={"perplexities": (other,)}))


@pytest.mark.parametrize(("lost", "gained", "borderline"), [(28, 16, True), (2, 2, False)])
def test_borderline_where_the_interval_holds_the_limit(lost, gained, borderline):
    (comparison,), decided = run(gating(), scores(400), scores(400, lost=lost, gained=gained))
    assert comparison.borderline is borderline
    assert decided.outcome == "pass"


def test_a_borderline_metric_is_named_first():
    names = ("easy", "close")
    settings = Settings(
        metrics=tuple(
            TaskMetric(task="ifeval", metric=name, min_retention=Decimal("0.95")) for name in names
        )
    )
    base = result(*(task(scores(400), metric=name) for name in names))
    cand = result(
        task(scores(400), metric="easy"), task(scores(400, lost=28, gained=16), metric="close")
    )
    assert run(settings, base, cand)[1].reasons[0].startswith("ifeval close")


def finding(severity="error", ignored=None):
    return Finding(
        rule="missing-scale", severity=severity, message="q_proj has none", fix="Export it again.",
        ignored=ignored,
    )  # fmt: skip


def test_a_lint_error_fails_at_lint():
    decided = verdict.decide(LINT.model_copy(update={"findings": (finding(),)}), ())
    assert (decided.outcome, decided.stage) == ("fail", "lint")
    assert decided.reasons == ("missing-scale: q_proj has none",)
    assert decided.fix == "Export it again."


@pytest.mark.parametrize("found", [finding("warning"), finding(ignored="on purpose")])
def test_warnings_and_ignored_errors_do_not_fail(found):
    decided = verdict.decide(LINT.model_copy(update={"findings": (found,)}), ())
    assert (decided.outcome, decided.stage) == ("pass", "lint")
    assert "1 rules ran" not in decided.reasons[0]
    assert "1 rule ran" in decided.reasons[0]


def test_a_canary_fails_whatever_the_metrics_say():
    answer = CanaryAnswer(
        task="ifeval", doc_id=3, defect="repeats itself", prompt="p", baseline="b", candidate="c"
    )
    comparisons, _ = run(gating(), scores(400), scores(400))
    decided = verdict.decide(LINT, comparisons, (answer,))
    assert (decided.outcome, decided.stage) == ("fail", "canary")
    assert decided.canary == (answer,)
    assert "document 3" in decided.reasons[0] and "repeats itself" in decided.reasons[0]


def test_size_plays_no_part():
    base = result(task(scores(400)))
    small = result(task(scores(400)), size=size(1000, 4.5))
    assert run(gating(), base, small)[1].outcome == "pass"


@pytest.mark.parametrize(("lost", "figure"), [(36, "pass"), (37, "fail")])
@pytest.mark.parametrize("policy", ["point", "block", "inconclusive"])
def test_what_is_borderline_is_decided_as_the_settings_say(lost, figure, policy):
    settings = gating().model_copy(update={"borderline": policy})
    (comparison,), decided = run(settings, scores(400), scores(400, lost=lost, gained=16))
    assert comparison.borderline
    wanted = {"point": figure, "block": "fail", "inconclusive": "inconclusive"}[policy]
    assert decided.outcome == comparison.outcome == wanted
    assert (f"borderline: {policy}" in decided.reasons[0]) == (wanted != figure)
    assert (decided.fix is None) == (wanted == "pass")


@pytest.mark.parametrize("policy", ["point", "block", "inconclusive"])
def test_what_is_not_borderline_is_decided_by_the_figure(policy):
    settings = gating().model_copy(update={"borderline": policy})
    for lost, outcome in ((0, "pass"), (100, "fail")):
        assert run(settings, scores(400), scores(400, lost=lost))[1].outcome == outcome


def test_a_borderline_perplexity_is_decided_as_the_settings_say():
    nll = [343.0 + 10 * (i % 5) for i in range(20)]
    settings = tripwire(Decimal("1.10")).model_copy(update={"borderline": "inconclusive"})
    base = result(perplexities=[perplexity(nll)])
    moved = [value + 6 + 6 * (i % 2) for i, value in enumerate(nll)]
    candidate = result(perplexities=[perplexity(moved)], format="modelopt")
    (comparison,), decided = run(settings, base, candidate)
    assert comparison.borderline
    assert decided.outcome == "inconclusive"
    assert "borderline: point" in (decided.fix or "")


def test_the_noise_band_is_that_of_the_changed_answers():
    (comparison,), _ = run(gating(), scores(400), scores(400, lost=28, gained=16))
    assert comparison.noise == pytest.approx(2.3263 * math.sqrt(44) / 400, rel=1e-4)
