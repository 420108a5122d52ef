"""Speed and memory: what is timed, what may be compared, what decides, what is said of it."""

import math
from decimal import Decimal
from itertools import product

import pytest
import results
from pydantic import ValidationError

from gate import speed, verdict
from gate.errors import OutOfMemoryError, SettingsError
from gate.records import Comparison, LintResult, Repeated, Throughput
from gate.settings import Borderline, Settings, Speed
from gate.verdict.speed import FASTER, RUN_MORE

LINT = LintResult(format="modelopt", algorithms=("FP8",))
DECODE = "decode tokens/s at batch 8"
ALONE = results.throughput().batches[0]


class Machine:
    """A backend whose clock only its own work moves: a second a run, then a token a step.

    Args:
        steps: Seconds a token, one entry a run; the last one stays.
        fits: Sequences that fit.
    """

    dtype, kernel, emulated = "bfloat16", "unquantized, bfloat16", False

    def __init__(self, *steps: float, fits: int = 99) -> None:
        self.steps, self.fits, self.now = list(steps), fits, 1000.0
        self.asked: list[speed.Workload] = []

    def clock(self) -> float:
        return self.now

    def generate(self, workload: speed.Workload, clock: speed.Clock) -> speed.Generated:
        if workload.batch > self.fits:
            raise OutOfMemoryError("memory ran out", "lower it")
        self.asked.append(workload)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        times = [clock()]
        for token in range(workload.new_tokens):
            self.now += step if token else 1.0
            times.append(clock())
        peak = 1000 * workload.batch + len(self.asked)
        return speed.Generated(times, peak, "device", "Clockwork 1", 2)


def measured(machine: Machine, **changes: object) -> Throughput:
    stated = {"batch": 4, "prompt_tokens": 100, "new_tokens": 11, "repeats": 3, "warmup": 1}
    asked = Speed.model_validate(stated | changes)
    done: list[int] = []
    found = speed.measure(machine, asked, done.append, machine.clock)
    assert sum(done) == speed.runs(asked)
    return found


def test_figures_are_medians_with_their_range_and_without_the_warm_up() -> None:
    machine = Machine(9.0, 0.1, 0.4, 0.2, 9.0, 0.2)
    found = measured(machine, gpu_hour_price=3.6)
    alone, together = found.batches
    assert (alone.batch, together.batch) == (1, 4)
    assert alone.first_token_s == Repeated(median=1, low=1, high=1)
    assert alone.prefill_tokens_per_s.median == 100
    assert alone.ms_per_token.median == pytest.approx(200)
    assert alone.ms_per_token.low == pytest.approx(100)
    assert alone.ms_per_token.high == pytest.approx(400)
    assert alone.decode_tokens_per_s.median == pytest.approx(5)
    assert alone.decode_tokens_per_s.low == pytest.approx(2.5)
    assert together.prefill_tokens_per_s.median == 400
    assert together.decode_tokens_per_s.median == pytest.approx(4 * 5)
    # 44 new tokens in a second of prefill and ten steps.
    assert together.output_tokens_per_s.median == pytest.approx(44 / 3)
    assert found.cost_per_million == pytest.approx(2 * 3.6 / 3600 / (44 / 3) * 1e6)
    assert (found.peak_bytes, found.peak_of) == (4008, "device")
    assert (found.device, found.devices) == ("Clockwork 1", 2)


def test_every_run_has_prompts_of_its_own_the_same_in_every_measurement() -> None:
    first, second = Machine(0.1), Machine(0.5)
    measured(first)
    measured(second)
    assert first.asked == second.asked
    assert [(work.batch, work.seed) for work in first.asked] == list(product((1, 4), range(4)))


def test_one_sequence_is_measured_once_where_it_is_the_batch() -> None:
    assert [found.batch for found in measured(Machine(0.1), batch=1).batches] == [1]


def test_a_batch_that_does_not_fit_is_no_smaller_one() -> None:
    with pytest.raises(OutOfMemoryError) as refused:
        measured(Machine(0.1, fits=3))
    assert "under speed" in refused.value.hint


def test_stored_figures_answer_only_the_same_work() -> None:
    asked = Speed(max_slowdown=Decimal("0.05"), gpu_hour_price=Decimal(9))
    assert speed.answers(results.throughput(), asked)
    for other in ({"new_tokens": 64}, {"prompt_tokens": 64}, {"batches": [ALONE]}):
        assert not speed.answers(results.throughput(**other), asked)


def test_without_a_price_there_is_no_cost() -> None:
    assert measured(Machine(0.1)).cost_per_million is None


@pytest.mark.parametrize(
    "config",
    [{"max_position_embeddings": 639}, {"text_config": {"max_position_embeddings": 639}}],
)
def test_more_tokens_than_the_context_holds_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"512 and 128 new tokens.*context of 639"):
        speed.require_room(Speed(), config)


@pytest.mark.parametrize(
    "config", [{"max_position_embeddings": 640}, {}, {"max_position_embeddings": "many"}]
)
def test_what_fits_or_is_not_known_is_not_refused(config: dict[str, object]) -> None:
    speed.require_room(Speed(), config)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch": 0}, "batch"),
        ({"new_tokens": 1}, "new_tokens"),
        ({"max_slowdown": 1}, "max_slowdown"),
        ({"max_slowdown": 0.05, "repeats": 2}, "repeats of at least 3"),
        ({"min_tokens_per_s": float("nan")}, "min_tokens_per_s"),
        ({"min_tokens_per_s": 0}, "min_tokens_per_s"),
        ({"max_peak_bytes": 0}, "max_peak_bytes"),
        ({"gpu_hour_price": float("inf")}, "gpu_hour_price"),
        ({"max_slow_down": 0.05}, "max_slow_down"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Speed.model_validate(wrong)


def compared(
    candidate: Throughput,
    base: Throughput | None = None,
    borderline: Borderline = "point",
    **limits: object,
) -> dict[str, Comparison]:
    """By metric; without limits as `gate compare` without settings."""
    settings = Settings(
        metrics=Settings().metrics[-1:],
        speed=Speed.model_validate(limits) if limits else None,
        borderline=borderline,
    )
    text = results.perplexity([300.0, 301.0], name=settings.perplexity_metrics[0].perplexity.label)
    stored = results.result(perplexities=[text], throughput=base)
    judged = results.result(perplexities=[text], throughput=candidate)
    found = verdict.compare(settings, stored, judged, 16)
    return {c.metric: c for c in found if c.task == verdict.SPEED}


@pytest.mark.parametrize(
    ("decode", "outcome", "borderline"),
    [
        ((94, 95, 96), "pass", False),  # exactly the limit
        ((94, 94.9, 96), "fail", False),
        ((94, 94.9, 99), "pass", True),  # its fastest run is as fast as the baseline's slowest
        ((94, 94.9, 98.9), "fail", False),
        ((110, 120, 130), "pass", False),
        ((math.nan, math.nan, math.nan), "fail", False),
        ((0, 0, 0), "fail", False),
    ],
)
def test_slower_than_allowed_is_a_fail_only_where_the_runs_do_not_overlap(
    decode: tuple[float, float, float], outcome: str, borderline: bool
) -> None:
    found = compared(results.throughput(decode), results.throughput(), max_slowdown=0.05)[DECODE]
    assert (found.outcome, found.borderline) == (outcome, borderline)
    assert str(found.threshold) == "0.95"


def test_each_batch_and_prefill_are_compared() -> None:
    found = compared(results.throughput(), results.throughput(), max_slowdown=0.05)
    assert [c.metric for c in found.values() if c.outcome is not None] == [
        "decode tokens/s at batch 1",
        DECODE,
        "prefill tokens/s at batch 8",
    ]
    assert found[verdict.PEAK_MEMORY].outcome is None
    assert found[verdict.PEAK_MEMORY].retention == 1


@pytest.mark.parametrize(("policy", "outcome"), [("block", "fail"), ("inconclusive",) * 2])
def test_a_borderline_speed_is_what_the_settings_make_of_it(
    policy: Borderline, outcome: str
) -> None:
    found = compared(
        results.throughput((94, 94.9, 99)), results.throughput(), policy, max_slowdown=0.05
    )
    assert found[DECODE].outcome == outcome
    assert f"too far apart to tell (borderline: {policy})" in found[DECODE].reason
    decided = verdict.decide(LINT, list(found.values()))
    assert decided.fix == (FASTER if policy == "block" else RUN_MORE)


@pytest.mark.parametrize(
    ("base", "why"),
    [
        (None, "the speed of the baseline was not measured"),
        (results.throughput(device="NVIDIA L4"), "another device: NVIDIA L4, here NVIDIA H100"),
        (results.throughput(devices=2), "another device: 2 x NVIDIA H100"),
        (results.throughput(prompt_tokens=64), "another prompt: 64 tokens, here 512 tokens"),
        (results.throughput(new_tokens=64), "another length: 64 new tokens"),
        (
            results.throughput(batches=[ALONE]),
            "another batch: 1, here 1 and 8",
        ),
        (results.throughput(emulated=True), "weights were decoded when it was measured"),
    ],
)
def test_a_baseline_that_was_measured_otherwise_decides_nothing(
    base: Throughput | None, why: str
) -> None:
    limits = Speed(max_slowdown=Decimal("0.05"))
    found = compared(results.throughput((1, 1, 1)), base, max_slowdown=0.05)
    assert {c.outcome for c in found.values()} == {None}
    assert why in found[DECODE].reason and math.isnan(found[DECODE].baseline)
    (concern,) = verdict.speed_concerns(limits, base, results.throughput())
    assert why in concern.message and "gate eval" in concern.fix


def test_decoded_weights_are_not_compared_with_the_reference() -> None:
    ours = results.throughput((1, 1, 1), emulated=True)
    found = compared(ours, results.throughput(), max_slowdown=0.05)
    assert found[DECODE].outcome is None and "quality, not speed" in found[DECODE].reason
    limits = Speed(max_slowdown=Decimal("0.05"))
    (concern,) = verdict.speed_concerns(limits, results.throughput(), ours)
    assert "quality, not speed" in concern.message
    both = compared(ours, results.throughput(emulated=True), max_slowdown=0.05)
    assert both[DECODE].outcome == "fail"


def test_what_was_measured_alike_raises_no_concern() -> None:
    limits = Speed(max_slowdown=Decimal("0.05"))
    assert not verdict.speed_concerns(limits, results.throughput(), results.throughput())
    assert not verdict.speed_concerns(Speed(), None, results.throughput())
    assert not verdict.speed_concerns(limits, None, None)
    assert not verdict.speed_concerns(None, None, results.throughput())


@pytest.mark.parametrize(
    ("limit", "metric", "outcome"),
    [
        ({"min_tokens_per_s": 100}, f"{DECODE}, at least", "pass"),
        ({"min_tokens_per_s": 100.1}, f"{DECODE}, at least", "fail"),
        ({"max_ms_per_token": 80}, "ms per token at batch 8, at most", "pass"),
        ({"max_ms_per_token": 79.9}, "ms per token at batch 8, at most", "fail"),
        ({"max_peak_bytes": 2_000_000_000}, verdict.PEAK_MEMORY, "pass"),
        ({"max_peak_bytes": 1_999_999_999}, verdict.PEAK_MEMORY, "fail"),
    ],
)
def test_a_figure_with_a_limit_of_its_own_needs_no_baseline(
    limit: dict[str, object], metric: str, outcome: str
) -> None:
    found = compared(results.throughput(), **limit)
    assert list(found) == [metric]
    assert found[metric].outcome == outcome and found[metric].absolute
    assert verdict.decide(LINT, list(found.values())).outcome == outcome


@pytest.mark.parametrize("limit", [{"min_tokens_per_s": 1}, {"max_ms_per_token": 1e9}])
def test_no_number_passes_no_limit(limit: dict[str, object]) -> None:
    (found,) = compared(results.throughput((math.nan,) * 3), **limit).values()
    assert found.outcome == "fail"


def test_a_figure_is_borderline_where_its_runs_lie_on_both_sides() -> None:
    (found,) = compared(results.throughput((99, 100, 101)), min_tokens_per_s=100.5).values()
    assert (found.outcome, found.borderline) == ("fail", True)
    (found,) = compared(results.throughput((99, 100, 101)), min_tokens_per_s=98).values()
    assert (found.outcome, found.borderline) == ("pass", False)


def test_without_limits_figures_are_only_shown() -> None:
    found = compared(results.throughput((1, 1, 1)), results.throughput())
    assert {c.outcome for c in found.values()} == {None}
    assert found[DECODE].retention == pytest.approx(0.01)
    assert not compared(results.throughput((1, 1, 1)))


def test_a_checkpoint_that_is_only_too_slow_is_told_about_kernels() -> None:
    found = compared(results.throughput(), min_tokens_per_s=1000)
    decided = verdict.decide(LINT, list(found.values()))
    assert decided.fix == FASTER
    assert decided.reasons == (f"{DECODE}: 100.0 (99.0 to 101.0); at least 1000 is required",)


def test_every_name_of_a_figure_is_known_to_who_makes_reports_of_strangers() -> None:
    found = compared(
        results.throughput(), results.throughput(),
        max_slowdown=0.05, min_tokens_per_s=1, max_ms_per_token=1, max_peak_bytes=1,
    )  # fmt: skip
    assert len(found) == 6
    assert all(verdict.SPEED_METRIC.fullmatch(name) for name in found)
