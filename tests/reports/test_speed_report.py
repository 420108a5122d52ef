"""What reports say of speed and memory."""

import re
from decimal import Decimal

import pytest
import results
from reports_data import BASELINE, COMPLETE, FP8, NVFP4, SETTINGS, make

from gate import verdict
from gate.records import EvalResult, GateRun, Report, Throughput
from gate.reports import comment, markdown, text
from gate.settings import Speed

LIMITS = Speed(
    max_slowdown=Decimal("0.05"), min_tokens_per_s=Decimal("50"), max_peak_bytes=3_000_000_000
)
PRICED = results.throughput((94, 94.9, 99), gpu_hour_price="2.50", peak_bytes=1_500_000_000)


def with_speed(result: EvalResult, speed: Throughput | None) -> EvalResult:
    return result.model_copy(update={"throughput": speed})


def judged(ours: Throughput, base: Throughput | None = None) -> Report:
    """The FP8 checkpoint of the other snapshots, its speed measured."""
    candidate, stored = with_speed(FP8, ours), with_speed(BASELINE, base)
    settings = SETTINGS.model_copy(update={"speed": LIMITS})
    decided = verdict.decide(COMPLETE, verdict.compare(settings, stored, candidate, 8))
    concerns = verdict.speed_concerns(LIMITS, base, ours)
    report = make("models/fp8", candidate, COMPLETE)
    return report.model_copy(
        update={"verdict": decided.model_copy(update={"concerns": tuple(concerns)})}
    )


def commented(report: Report) -> str:
    run = GateRun(
        gate_version="0.1.0", key="gate", repository="acme/models", reports=(report,), date="2026"
    )
    return comment.render(run)


FORMS = {
    "text": lambda report: text.render(report, width=400),
    "markdown": lambda report: markdown.render(report).replace("\\", ""),
    "comment": lambda report: (
        commented(report).replace("\\", "").replace("\N{NO-BREAK SPACE}", " ")
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_speed_memory_cost_and_how_it_was_measured(form: str) -> None:
    said = FORMS[form](judged(PRICED, results.throughput()))
    for sentence in (
        "Speed and memory",
        "94.9 (94 to 99)",
        "84.3 (80.8 to 85.1)",
        "1,000 (999 to 1,001)",
        "Median and range of 3 runs of 512 random tokens and 128 new ones a sequence; NVIDIA H100 "
        "80GB HBM3, unquantized, bfloat16.",
        "Peak memory: 1.5 GB, allocated on the device while it ran.",
        "8.13 for a million new tokens at batch 8, their prompts included, at 2.50 a GPU hour",
        "×0.949",
        "≥ 0.95",
        "BORDERLINE",
        "the runs of decode tokens/s at batch 8 are too far apart to tell it from its limit",
        "≥ 50",
        "≤ 3.0 GB",
        "2.0 GB",
    ):
        assert sentence in said
    assert "nan" not in said
    assert "95 % interval of speed" not in said
    assert "quality, not speed" not in said


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_that_decoded_weights_say_nothing_of_speed(form: str) -> None:
    said = FORMS[form](judged(results.throughput(emulated=True), results.throughput()))
    assert "emulated quantization tells quality, not speed" in said
    assert "max_slowdown was not applied: the candidate's quantized weights were decoded" in said
    assert "nan" not in said


def test_a_report_without_speed_says_nothing_of_it() -> None:
    said = text.render(make("models/fp8", FP8, COMPLETE))
    assert "tokens/s" not in said and "Peak memory" not in said and "Speed" not in said


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_that_failed_before_says_that_its_speed_was_not_measured(form: str) -> None:
    failed = make("models/nvfp4", NVFP4, COMPLETE)
    assert "Not run" not in FORMS[form](failed)
    asked = failed.settings | {"speed": LIMITS.model_dump(mode="json")}
    said = FORMS[form](failed.model_copy(update={"settings": asked}))
    assert re.search(r"Not run[^\n]*: *speed|Not run +speed", said)


def test_a_budget_is_no_share_of_a_figure() -> None:
    """A limit of three billion bytes is no ratio that may grow to three billion."""
    row = next(line for line in commented(judged(PRICED)).splitlines() if "peak memory" in line)
    assert "%" not in row


def test_variants_have_columns_of_speed_where_it_was_measured() -> None:
    stored = with_speed(BASELINE, results.throughput((99, 100, 101), peak_bytes=2_000_000_000))
    fast = with_speed(FP8, results.throughput((199, 200, 201), emulated=True))
    rows = [("fast", fast, ()), ("unknown", FP8, ())]
    lines = markdown.variants(stored, rows).splitlines()
    assert lines[0].endswith("| decode tokens/s | peak memory |")
    assert lines[2].endswith("| 100 \\(batch 8\\) | 2.0 GB |")
    assert lines[3].endswith("| 200 \\(batch 8, emulated\\) | 2.0 GB |")
    assert lines[4].endswith("|  |  |")
    assert "tokens/s" not in markdown.variants(BASELINE, [("fp8", FP8, ())])
    assert "(batch 8, emulated)" in text.variants(stored, rows)
