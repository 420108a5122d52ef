"""The table of how far distributions have moved, in every form; its names come from settings."""

import pytest
import reports_data
from results import result
from run_data import run

from gate.records import Distributions, Drift, EvalResult, Report, RoundingFloor
from gate.reports import comment, markdown, text

HOSTILE = "evil|name`<img src=x> @all\x1b[31m"


def drift(**changes: object) -> Drift:
    stated = {
        "name": "domain.txt",
        "source": "text",
        "k": 64,
        "distributions": "0" * 64,
        "tokens": 28_616,
        "windows": 56,
        "kl": 0.0312,
        "kl_stderr": 0.0009,
        "kl_p99": 0.281,
        "kl_max": 4.9,
        "same_top": 0.8849,
        "same_top_stderr": 0.002,
        "losses": 530,
        "gains": 466,
    }
    return Drift.model_validate(stated | changes)


def report(*drifts: Drift, **changes: object) -> Report:
    candidate: EvalResult = reports_data.FP8.model_copy(update={"drifts": drifts, **changes})
    return reports_data.make("models/fp8", candidate, reports_data.linted("FP8"))


FORMS = {
    "text": text.render,
    "markdown": markdown.render,
    "comment": lambda made: comment.render(run(made)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_shows_the_table(form: str) -> None:
    floor = RoundingFloor(kl=0.00031, codes_changed=0.002, tokens=1024)
    answers = drift(name="ifeval", source="answers", kl_stderr=None, tokens=96, k=64)
    shown = FORMS[form](report(drift(), answers, rounding_floor=floor))
    flat = " ".join(shown.replace("\N{NO-BREAK SPACE}", " ").replace("\\", "").split())
    assert "Drift from the baseline" in flat
    for figure in ("28,616", "0.0312 ± 0.0009", "0.281", "4.90", "88.5 %", "530 / 466"):
        assert figure in flat
    assert "answers to ifeval" in flat
    assert "a lower bound (top 64 tokens of the baseline, the rest as one)" in flat
    assert "rounding alone gives a mean KL of 0.00031" in flat


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_said_where_nothing_is_known(form: str) -> None:
    assert "Drift" not in FORMS[form](report())


@pytest.mark.parametrize("form", FORMS)
def test_what_was_not_read_is_a_fact(form: str) -> None:
    shown = FORMS[form](report(unread=("perplexity on domain.txt 8k: windows too long",)))
    assert "Not read" in shown and "windows too long" in shown


@pytest.mark.parametrize("form", FORMS)
def test_names_cannot_break_out_of_the_table(form: str) -> None:
    shown = FORMS[form](report(drift(name=HOSTILE)))
    assert "\x1b" not in shown
    if form != "text":
        assert "<img" not in shown.replace("`evil", "") or "`" in shown
        (row,) = [line for line in shown.splitlines() if "evil" in line and "0.0312" in line]
        assert row.count(" | ") == 6


def test_a_stored_result_names_the_files_beside_it(tmp_path) -> None:
    kept = Distributions(name="domain.txt", source="text", k=64, tokens=511, digest="0" * 64)
    shown = text.result(result(distributions=(kept,)), tmp_path / "baseline.json")
    flat = " ".join(shown.split())
    assert "top 64 of domain.txt (511 tokens); keep the 1 .npz files beside the result" in flat
