"""Real exports of SmolLM2: planted faults come first, and the printed recipe heals NVFP4."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_faults import plant

from gate import demo, records
from gate.cli import cli
from gate.records import DiagnosisReport, Report
from gate.reports import recipe
from gate.reports.diagnosis import culprits, sentences

pytestmark = [pytest.mark.model, pytest.mark.slow]

FAULTS = ("scale", "head", "nibbles")
TRIALS = [(FAULTS[seed % 3], seed) for seed in range(20)]
SAID = {"scale": "4 times too large", "nibbles": "in another order", "head": ""}

SETTINGS = """
checkpoints: [{{path: "*", reference: {reference}}}]
metrics:
  - perplexity: {{file: wikitext.txt, window: 512, windows: 56}}
    max_ratio: 1.15
"""


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path], shared_data: Path
) -> Path:
    """A directory with the settings of a gate and the text that it reads."""
    root = tmp_path_factory.mktemp("trials")
    (root / "quant-gate.yaml").write_text(SETTINGS.format(reference=export("bf16")))
    shutil.copy(shared_data / "wikitext-2-raw" / "wiki.test.raw", root / "wikitext.txt")
    return root


@pytest.fixture
def gate(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command there."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(place / "cache"))
    return lambda *words: cli.main([*map(str, words)], standalone_mode=False)


def quantize(reference: Path, path: Path, config: dict[str, Any]) -> None:
    """Export as the demo does, by another configuration."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(reference)

    def calibrate(model: Any) -> None:
        for text in demo.topics()[: demo.CALIBRATION_TOPICS]:
            model(
                **tokenizer(
                    text,
                    return_tensors="pt",
                    truncation=True,
                    max_length=demo.CALIBRATION_TOKENS,
                )
            )

    with torch.inference_mode():
        export_hf_checkpoint(mtq.quantize(model, config, calibrate), export_dir=path)
    tokenizer.save_pretrained(path)


@pytest.mark.parametrize(("fault", "seed"), TRIALS)
def test_a_planted_fault_is_the_first(
    fault: str,
    seed: int,
    export: Callable[[str], Path],
    place: Path,
    gate: Callable[..., int],
    record_property: Callable[[str, object], None],
) -> None:
    broken = place / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(export("nvfp4" if fault == "nibbles" else "fp8"), broken)
    module = plant(broken, fault, seed)
    assert gate("diagnose", "broken", "-o", "found.json") == 0
    told = records.read(place / "found.json", DiagnosisReport).diagnosis
    ranked = [found.module for found in told.modules]
    record_property(f"{fault} {seed}", f"{module}: {ranked.index(module) + 1}, {told.duration_s} s")
    assert ranked[0] == module
    assert module in {found.module for found in culprits(told)}
    assert SAID[fault] in sentences(told)[2]


def test_nvfp4_fails_and_its_recipe_passes(
    export: Callable[[str], Path],
    place: Path,
    gate: Callable[..., int],
    record_property: Callable[[str, object], None],
) -> None:
    assert gate("eval", export("bf16"), "-o", "baselines/bf16.json") == 0
    assert gate("check", export("nvfp4"), "--report", "json=before.json") == 1
    asked = (export("nvfp4"), "--reference", export("bf16"))
    assert gate("diagnose", *asked, "-o", "found.json") == 0
    told = records.read(place / "found.json", DiagnosisReport)
    exclusion = told.diagnosis.exclusion
    assert exclusion is not None and exclusion.perplexity_ratio_high <= 1.15
    *_, (_, code) = recipe.ways(exclusion, told.lint)
    made: dict[str, Any] = {}
    exec(code.rpartition("\n")[0], made)
    quantize(export("bf16"), place / "again", made["config"])
    assert gate("check", "again", "--report", "json=after.json") == 0
    for name in ("before", "after"):
        report = records.read(place / f"{name}.json", Report)
        ratio = report.verdict.comparisons[0].retention
        assert report.size is not None
        record_property(name, f"ratio {ratio:.4f}, {report.size.stored_bytes:,} bytes")
    record_property("proposed", exclusion.model_dump_json())
