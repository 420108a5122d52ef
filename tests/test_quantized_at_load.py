"""A model as a runtime quantizes it at load: judged as itself, and never taken for the files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import native_models
import pytest
import results
from pydantic import ValidationError

from gate import attest, baseline, check, history, placement, records, resume
from gate.errors import AttestError, BackendUnavailableError, BaselineMismatchError, SettingsError
from gate.github.remaking import Origin, remake
from gate.records import GateRun, Report
from gate.reports import markdown, text
from gate.request import Request
from gate.run import Run
from gate.settings import AT_LOAD, RuntimeQuantization, Settings
from gate.subjects import alone
from gate.terminal import silent

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

NF4 = {"load_in_4bit": "nf4"}
LABEL = "bitsandbytes NF4"
ORIGIN = Origin("acme/models", "k", 1, 1, None, "a" * 40, None, 7)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Path:
    """A directory with an unquantized model, a text, and a baseline made by `hf`."""
    root = tmp_path_factory.mktemp("at_load")
    text = " ".join(f"Line {n} of a text to be read." for n in range(40))
    native_models.familiarize(native_models.plain(root / "model", export("bf16")), text)
    (root / "text.txt").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANT_GATE_CACHE", str(root / "cache"))
        stored = check.measure(request(root, stated(backend="hf")))
    records.write(root / "baseline.json", stored)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))


def stated(runtime: Any = None, **changes: Any) -> Settings:
    metric = {"perplexity": {"file": "text.txt", "window": 32}, "max_ratio": "1.5"}
    return Settings.model_validate(
        {"backend": "native", "metrics": [metric], "runtime_quantization": runtime, **changes}
    )


def request(place: Path, asked: Settings, **more: Any) -> Request:
    return Request(
        checkpoint=str(place / "model"),
        settings=asked,
        root=place,
        command="gate",
        progress=silent,
        store=lambda record: None,
        **more,
    )


@pytest.fixture(scope="module")
def report(place: Path) -> Report:
    """The verdict on the model as it is once it is quantized."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANT_GATE_CACHE", str(place / "cache"))
        asked = request(place, stated(NF4), baseline=place / "baseline.json", reuse=True)
        return check.check(asked)


def test_the_verdict_says_what_was_judged(report: Report) -> None:
    assert report.runtime_quantization == LABEL
    assert report.evaluation is not None and report.evaluation.runtime_quantization == LABEL
    assert report.evaluation.kernel.startswith(f"quantized at load: {LABEL}, by bitsandbytes")
    assert f"quantized at load: {LABEL}" in text.render(report).splitlines()[0]
    assert f"quantized at load: {LABEL}" in markdown.render(report).splitlines()[0]
    (ratio,) = [c for c in report.verdict.comparisons if c.task == "perplexity"]
    assert ratio.candidate != ratio.baseline


def test_a_forks_report_keeps_only_a_label_that_there_is(report: Report) -> None:
    def remade(said: str) -> str | None:
        run = GateRun(
            gate_version="1",
            key="k",
            reports=(report.model_copy(update={"runtime_quantization": said}),),
            date="2026-01-01",
        )
        return remake(run, ORIGIN).reports[0].runtime_quantization

    assert remade(LABEL) == LABEL
    assert remade("nothing, trust me") is None


def test_it_is_never_attested(report: Report, place: Path, tmp_path: Path) -> None:
    records.write(tmp_path / "report.json", report)
    with pytest.raises(AttestError, match=rf"quantized at load \({LABEL}\): these files hold"):
        attest.attest(tmp_path / "report.json", place / "model")


def test_no_verdict_is_shared_with_the_plain_model(report: Report, place: Path) -> None:
    """Nor with another quantization: each is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANT_GATE_CACHE", str(place / "cache"))
        kept = {"baseline": place / "baseline.json", "reuse": True}
        again = check.check(request(place, stated(NF4), **kept))
        plain = check.check(request(place, stated(), **kept))
    assert again.reused_from is not None
    assert plain.reused_from is None and plain.runtime_quantization is None
    assert plain.verdict.comparisons[0].retention == 1
    assert "quantized at load" not in text.render(plain)


def test_runs_that_were_broken_off_are_told_apart(place: Path) -> None:
    ways = (None, NF4, NF4 | {"bnb_4bit_use_double_quant": True}, {"load_in_8bit": True})
    asked = request(place, stated())
    run = Run(asked, alone(asked))
    paths = set()
    for way in ways:
        subject = replace(run.subject, runtime=way and RuntimeQuantization.model_validate(way))
        paths.add(resume.journal_path(asked, subject, run.backend, run.readings))
    assert len(paths) == len(ways)


def test_a_baseline_is_the_model_as_it_is_stored(place: Path) -> None:
    """The settings that judge it are those that make its baseline."""
    made = check.measure(request(place, stated(NF4)))
    stored = records.read(place / "baseline.json", records.EvalResult)
    assert made.runtime_quantization is None and made.kernel == stored.kernel
    assert made.perplexities == stored.perplexities


def test_results_that_were_quantized_otherwise_are_not_compared() -> None:
    def kept(runtime: str | None, **changes: Any) -> Any:
        made = results.result(results.task([1.0]), **({"backend": "native"} | changes))
        return made.model_copy(update={"runtime_quantization": runtime})

    plain, four, eight = kept(None), kept(LABEL), kept("bitsandbytes INT8")
    assert len({baseline.fingerprint(each) for each in (plain, four, eight)}) == 3
    path = Path("b.json")
    baseline.require_comparable(plain, baseline.Conditions.of(four), path)
    for theirs, ours in ((four, plain), (four, eight)):
        with pytest.raises(BaselineMismatchError, match="runtime_quantization is bitsandbytes NF4"):
            baseline.require_comparable(theirs, baseline.Conditions.of(ours), path)
    unquantized = kept(None, backend="hf", format=None)
    baseline.require_comparable(unquantized, baseline.Conditions.of(four), path)
    decoded = kept(None, backend="hf", format="modelopt")
    with pytest.raises(BaselineMismatchError, match="backend is hf in the baseline and native"):
        baseline.require_comparable(decoded, baseline.Conditions.of(plain), path)


def test_the_history_keeps_it_apart() -> None:
    assert history.name("a/b", None, ()) == "a/b"
    assert history.name("a/b", None, (), LABEL) == f"a/b, quantized at load: {LABEL}"


@pytest.mark.parametrize(
    "asked",
    [
        {"backend": "hf", "runtime_quantization": NF4},
        {"backend": "native", "runtime_quantization": {}},
        {"backend": "native", "runtime_quantization": {"quantization": "fp8"}},
        {"backend": "vllm", "runtime_quantization": NF4},
        {"backend": "vllm", "runtime_quantization": NF4 | {"kv_cache_dtype": "fp8"}},
        {"backend": "native", "runtime_quantization": NF4 | {"load_in_8bit": True}},
        {"backend": "native", "runtime_quantization": {"load_in_4bit": "nf5"}},
        {
            "backend": "native",
            "runtime_quantization": {"load_in_8bit": True, "bnb_4bit_compute_dtype": "bfloat16"},
        },
    ],
)
def test_contradictory_settings_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(asked)


def test_every_way_has_a_label_of_its_own() -> None:
    assert len(AT_LOAD) == 16 and LABEL in AT_LOAD
    found = RuntimeQuantization(
        load_in_4bit="fp4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float16"
    )
    assert found.label == "bitsandbytes FP4, double quantization, computed in float16"
    assert (found.weight_bits, RuntimeQuantization(load_in_8bit=True).weight_bits) == (4, 8)
    cache = RuntimeQuantization(kv_cache_dtype="fp8")
    assert (cache.weight_bits, cache.label) == (16, "vLLM FP8 KV cache")
    both = RuntimeQuantization(quantization="fp8", kv_cache_dtype="fp8")
    assert (both.weight_bits, both.label) == (8, "vLLM FP8 with FP8 KV cache")


def test_its_bits_decide_the_usual_limit(place: Path) -> None:
    asked = request(place, stated(NF4))
    assert alone(asked).weight_bits == 4
    assert alone(request(place, stated())).weight_bits == 16


def test_memory_is_that_of_the_quantized_layers(place: Path) -> None:
    subject = alone(request(place, stated()))
    sizes = [
        placement.loaded_bytes(stated(way), subject.checkpoint, subject.form)
        for way in (NF4, {"load_in_8bit": True}, None)
    ]
    assert sizes == sorted(set(sizes)) and sizes[-1] == sum(
        info.nbytes for info in subject.checkpoint.tensors.values()
    )
    with pytest.raises(BackendUnavailableError, match="cannot be streamed layer by layer"):
        placement.place(stated(memory="stream"), subject.checkpoint, subject.form)


def test_a_quantized_checkpoint_is_refused_before_its_baseline_is_looked_for(
    place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    checkpoints.build(path, "FP8")
    with pytest.raises(SettingsError, match="it cannot be quantized again at load"):
        check.check(request(tmp_path, stated(NF4)))
