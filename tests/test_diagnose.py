"""Finding where it hurts: what the verb asks, and what it never does to a verdict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import results
from checkpoints import bf16, build, edit_tensors, f32

from gate import baseline, diagnosis, records
from gate.checkpoint import open_checkpoint
from gate.cli import cli
from gate.containers import CONTAINERS
from gate.errors import (
    BackendUnavailableError,
    CheckpointError,
    GateError,
    NonFiniteLogitsError,
    SettingsError,
)
from gate.records import Diagnosis, DiagnosisReport, EvalResult, Exclusion, Report

SETTINGS = """
backend: replay
answers: candidate.json
metrics:
  - perplexity: {file: domain.txt, window: 101, windows: 3}
    max_ratio: 1.10
"""
FOUND = Diagnosis(
    reference="reference",
    text="domain.txt",
    windows=2,
    window=101,
    tokens=200,
    top_tokens=64,
    divergence=0.3,
    perplexity_ratio=1.2,
)
LIMITED = FOUND.model_copy(update={"limit": 1.1})
MODEL = "quantized_model"
FIX = "See where it hurts: gate diagnose quantized_model"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs the command beside a model that fails; gives what the engine was asked."""
    path = build(tmp_path / MODEL, "FP8")
    build(tmp_path / "reference", None)
    (tmp_path / "domain.txt").write_text("words " * 1000)
    records.write(tmp_path / "candidate.json", measured(path, 312, format="modelopt"))
    original = measured(tmp_path / "reference", 300)
    base = measured(path, 300).model_copy(update={"weights_digest": original.weights_digest})
    records.write(tmp_path / "baselines" / "base.json", base)
    settings(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, code: int = 0, found: Any = FOUND) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def engine(*values: Any, **options: Any) -> Diagnosis:
            names = ("checkpoint", "form", "reference", "settings", "text", "content")
            asked.update(zip(names, values, strict=True), **options)
            asked["stored"] = (tmp_path / "report.json").is_file()
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(diagnosis, "diagnose", engine)
        assert cli.main(list(arguments), standalone_mode=False) == code
        return asked

    return run


def measured(path: Path, nll: float, **changes: Any) -> EvalResult:
    """A stored result of the checkpoint at `path`, of one text alone."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    stated = {
        "perplexities": [results.perplexity([nll, nll + 1, nll - 1])],
        "setups": (),
        "weights_digest": baseline.weights_digest(checkpoint),
        "config_digest": baseline.config_digest(checkpoint),
        "tokenizer_digest": baseline.tokenizer_digest(checkpoint),
        "chat_template_sha": baseline.template_sha(checkpoint),
        "weight_bits": 8,
    }
    return results.result(**(stated | changes))


def settings(root: Path, more: str, reference: str = "reference") -> None:
    """What the model is judged by."""
    rule = f"checkpoints: [{{path: {MODEL}, reference: {reference}}}]\n" if reference else ""
    (root / "quant-gate.yaml").write_text(SETTINGS + rule + more)


def judged(ask: Ask, **options: Any) -> tuple[Report, dict[str, Any]]:
    asked = ask("check", MODEL, "--report", "json=report.json", **options)
    return records.read(Path("report.json"), Report), asked


def test_asks_for_the_settings_own_text_reference_and_limit(ask: Ask) -> None:
    asked = ask("diagnose", MODEL)
    assert asked["reference"].source == "reference" and asked["checkpoint"].source == MODEL
    assert asked["text"].label == "domain.txt" and asked["content"].startswith("words ")
    assert (asked["limit"], asked["windows"]) == (1.1, diagnosis.WINDOWS)


def test_the_command_line_comes_first(ask: Ask) -> None:
    build(Path("other"), None)
    asked = ask("diagnose", MODEL, "--reference", "other", "--limit", "1.3", "--windows", "5")
    assert asked["reference"].source == "other"
    assert (asked["limit"], asked["windows"]) == (1.3, 5)


def test_prints_and_stores(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, begins in (("text", "No module"), ("markdown", "## No module"), ("json", "{")):
        ask("diagnose", MODEL, "--format", kind, "-o", "out/found.json")
        assert capsys.readouterr().out.startswith(begins)
    stored = records.read(Path("out/found.json"), DiagnosisReport)
    assert (stored.checkpoint, stored.diagnosis) == (MODEL, LIMITED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "nan"], "no ratio"),
        (["--limit", "0.9"], "no ratio"),
        (["--reference", "nowhere"], "nowhere"),
    ],
)
def test_2_what_is_asked_wrongly(ask: Ask, arguments: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ask("diagnose", MODEL, *arguments)


def test_2_without_a_reference_or_a_text(ask: Ask) -> None:
    settings(Path(), "", reference="")
    with pytest.raises(SettingsError, match="no reference") as caught:
        ask("diagnose", MODEL)
    assert caught.value.hint.endswith("gate diagnose quantized_model --reference ORIGINAL")
    settings(Path(), "", reference="gone")
    with pytest.raises(SettingsError, match="gone"):
        ask("diagnose", MODEL)
    Path("quant-gate.yaml").write_text("metrics: [{task: ifeval}]")
    with pytest.raises(SettingsError, match="no perplexity"):
        ask("diagnose", MODEL, "--reference", "reference")


def test_no_set_is_proposed_where_no_limit_is_usual(ask: Ask) -> None:
    settings(Path(), "")
    text = Path("quant-gate.yaml").read_text().replace("    max_ratio: 1.10\n", "")
    Path("quant-gate.yaml").write_text(text)
    assert ask("diagnose", MODEL)["limit"] is None


@pytest.mark.parametrize("error", [CheckpointError("codes", "x"), ValueError("codes")])
def test_3_an_error_of_lint_is_told_before_what_it_causes(ask: Ask, error: Exception) -> None:
    with pytest.raises(type(error), match="codes"):
        ask("diagnose", MODEL, found=error)
    scale = "model.layers.0.mlp.up_proj.weight_scale"
    edit_tensors(Path(MODEL), lambda tensors: tensors.pop(scale))
    with pytest.raises(CheckpointError, match=r"broken and was not diagnosed: .*up_proj"):
        ask("diagnose", MODEL, found=error)


def test_an_error_of_lint_that_can_be_decoded_is_told_first(ask: Ask, capsys: Any) -> None:
    zero = {"model.layers.0.mlp.up_proj.weight_scale": f32((), 0.0)}
    edit_tensors(Path(MODEL), lambda tensors: tensors.update(zero))
    ask("diagnose", MODEL)
    assert capsys.readouterr().out.startswith("Static validation found 1 error")


EXCLUSION = Exclusion(
    modules=(
        "model.layers.0.mlp.down_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ),
    limit=1.1,
    perplexity_ratio=1.05,
    perplexity_ratio_high=1.09,
    divergence=0.1,
    extra_bytes=1,
    measurements=3,
)


def test_the_recipe_keeps_out_what_was_kept_out_already(ask: Ask) -> None:
    """A pattern stands for modules that differ in the last digit of their layer."""
    unquantized = "model.layers.1.self_attn.q_proj"

    def keep(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith(unquantized)]:
            _, shape, _ = tensors.pop(name)
            if name.endswith(".weight"):
                tensors[name] = bf16(shape)

    edit_tensors(Path(MODEL), keep)
    found = FOUND.model_copy(update={"exclusion": EXCLUSION})
    ask("diagnose", MODEL, "-o", "found.json", found=found)
    exclusion = records.read(Path("found.json"), DiagnosisReport).diagnosis.exclusion
    assert exclusion is not None and set(exclusion.patterns) == {
        "model.layers.[01].mlp.down_proj",
        "model.layers.0.mlp.up_proj",
        unquantized,
    }


def test_a_failure_offers_the_command(ask: Ask) -> None:
    report, asked = judged(ask, code=1)
    assert asked == {} and report.diagnosis is None
    assert (report.verdict.fix or "").endswith(FIX)


@pytest.mark.parametrize("why", ["passed", "no reference", "lint", "asked for"])
def test_nothing_is_offered_where_it_would_not_help(ask: Ask, why: str) -> None:
    code = 0 if why == "passed" else 1
    if why == "passed":
        records.write(Path("candidate.json"), measured(Path(MODEL), 300, format="modelopt"))
    if why == "no reference":
        settings(Path(), "", reference="")
    if why == "lint":
        scale = "model.layers.0.mlp.up_proj.weight_scale"
        edit_tensors(Path(MODEL), lambda tensors: tensors.pop(scale))
    if why == "asked for":
        settings(Path(), "on_fail: diagnose\n")
    options = () if why != "no reference" else ("--baseline", "baselines/base.json")
    ask("check", MODEL, "--report", "json=report.json", *options, code=code)
    report = records.read(Path("report.json"), Report)
    assert FIX not in (report.verdict.fix or "")
    assert (report.diagnosis == LIMITED) is (why == "asked for")


def test_a_failure_is_diagnosed_and_stays_the_same_failure(ask: Ask, capsys: Any) -> None:
    settings(Path(), "on_fail: off\n")
    plain, _ = judged(ask, code=1)
    settings(Path(), "on_fail: diagnose\n")
    report, asked = judged(ask, code=1)
    assert asked["stored"], "the verdict is stored before"
    assert report.diagnosis == LIMITED
    fix = (plain.verdict.fix or "").removesuffix(FIX).strip()
    assert report.verdict == plain.verdict.model_copy(update={"fix": fix})
    assert "Where it hurts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BackendUnavailableError("20 GiB are missing", "Free memory."), "20 GiB are missing"),
        (NonFiniteLogitsError("layer 3 gives NaN", "Lint."), "layer 3 gives NaN"),
        (RuntimeError("an accident"), "RuntimeError: an accident"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_a_diagnosis_that_fails_takes_no_verdict(ask: Ask, error: Exception, said: str) -> None:
    settings(Path(), "on_fail: diagnose\n")
    report, _ = judged(ask, code=1, found=error)
    concern = report.verdict.concerns[-1]
    assert concern.kind == "not-diagnosed"
    assert concern.message.startswith(f"It could not be diagnosed: {said}")
    assert report.verdict.stage == "perplexity" and report.diagnosis is None
    hint = error.hint if isinstance(error, GateError) else "gate diagnose quantized_model"
    assert concern.fix.endswith(hint)


def test_without_a_reference_the_report_says_so(ask: Ask) -> None:
    settings(Path(), "on_fail: diagnose\n", reference="")
    ask("check", MODEL, "--report", "json=report.json", "--baseline", "baselines/base.json", code=1)
    report = records.read(Path("report.json"), Report)
    assert "no reference for quantized_model" in report.verdict.concerns[-1].message


def test_an_interrupted_diagnosis_leaves_the_stored_verdict(ask: Ask) -> None:
    settings(Path(), "on_fail: diagnose\n")
    with pytest.raises(click.Abort):
        judged(ask, code=1, found=KeyboardInterrupt())
    assert records.read(Path("report.json"), Report).verdict.outcome == "fail"
