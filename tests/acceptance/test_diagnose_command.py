"""A small model that hurts: found, explained, exported again by the recipe that was printed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_faults import plant
from tiny_models import VOCABULARY, export, llama, opened, recipe

from gate import records
from gate.cli import cli
from gate.records import DiagnosisReport, Report
from gate.reports import recipe as recipes
from gate.reports.diagnosis import sentences

pytestmark = pytest.mark.model

SETTINGS = """
checkpoints: [{{path: "*", reference: reference}}]
on_fail: {on_fail}
metrics:
  - perplexity: {{file: text.txt, window: 64, windows: 16}}
    max_ratio: {limit}
"""
KEPT = "model.layers.1.self_attn.o_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that is sure of what it says, text that it wrote, and its export to NVFP4."""
    import torch

    root = tmp_path_factory.mktemp("hurts")
    model = llama()
    with torch.inference_mode():
        for name, weight in model.named_parameters():
            weight.mul_(1 if "norm" in name else 4)
        start = torch.arange(2, 18)[:, None]
        torch.manual_seed(0)
        said = model.generate(start, do_sample=True, min_new_tokens=63, max_new_tokens=63)
    (root / "text.txt").write_text(" ".join(f"w{i}" for i in said.flatten().tolist()))
    config = recipe("NVFP4_DEFAULT")
    kept = [{"quantizer_name": f"{KEPT}.*", "enable": False}]
    export(model, {**config, "quant_cfg": [*config["quant_cfg"], *kept]}, root / "nvfp4")
    (root / "nvfp4-plain").rename(root / "reference")
    tokenizer().save_pretrained(root / "reference")
    tokenizer().save_pretrained(root / "nvfp4")
    return root


def tokenizer() -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>")


@pytest.fixture
def gate(made: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command there."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(made / "cache"))
    settings(made)
    return lambda *words: cli.main([*map(str, words)], standalone_mode=False)


def settings(root: Path, on_fail: str = "off", limit: float = 9) -> None:
    text = SETTINGS.format(on_fail=on_fail, limit=limit)
    (root / "quant-gate.yaml").write_text(text)


def found(gate: Callable[..., int], path: str, *options: Any) -> DiagnosisReport:
    assert gate("diagnose", path, "-o", "found.json", *options) == 0
    return records.read(Path("found.json"), DiagnosisReport)


def test_the_printed_recipe_makes_a_checkpoint_that_keeps_the_limit(
    made: Path, gate: Callable[..., int]
) -> None:
    import modelopt.torch.quantization as mtq
    from transformers import AutoModelForCausalLM

    whole = found(gate, "nvfp4").diagnosis
    limit = 1 + (whole.perplexity_ratio - 1) / 2
    told = found(gate, "nvfp4", "--limit", limit)
    exclusion = told.diagnosis.exclusion
    assert exclusion is not None and 0 < len(exclusion.modules) < 13
    assert whole.perplexity_ratio > limit >= exclusion.perplexity_ratio
    *_, (_, code) = recipes.ways(exclusion, told.lint)
    config: dict[str, Any] = {}
    exec(code.rpartition("\n")[0], config)
    assert code.endswith("\nmodel = mtq.quantize(model, config, forward_loop)") and mtq.quantize
    model = AutoModelForCausalLM.from_pretrained(made / "reference", dtype="auto")
    export(model, config["config"], made / "again")
    tokenizer().save_pretrained(made / "again")
    checkpoint, _ = opened(made / "again")
    unquantized = {
        name.removesuffix(".weight")
        for name, info in checkpoint.tensors.items()
        if "proj" in name and info.dtype == "BF16"
    }
    assert unquantized == {KEPT, *exclusion.modules}
    again = found(gate, "again").diagnosis
    assert again.perplexity_ratio == pytest.approx(exclusion.perplexity_ratio, abs=0.02)
    assert gate("lint", "again") == 0


def test_a_planted_fault_comes_first(made: Path, gate: Callable[..., int], capsys: Any) -> None:
    shutil.rmtree(made / "broken", ignore_errors=True)
    shutil.copytree(made / "nvfp4", made / "broken")
    module = plant(made / "broken", "nibbles", 1)
    told = found(gate, "broken").diagnosis
    assert told.modules[0].module == module
    first, second, third = sentences(told)
    assert capsys.readouterr().out.startswith(first[:60])
    assert "do not resemble" in second and f"Export {module}.weight again" in third


def test_a_failed_check_says_where(made: Path, gate: Callable[..., int], capsys: Any) -> None:
    assert gate("eval", "reference", "-o", "baselines/reference.json") == 0
    settings(made, "diagnose", 1.001)
    files = [f"--report={kind}=report.{kind}" for kind in ("json", "markdown")]
    assert gate("check", "nvfp4", *files) == 1
    report = records.read(made / "report.json", Report)
    assert report.diagnosis is not None and report.verdict.stage == "perplexity"
    assert report.verdict.concerns == ()
    measured = report.verdict.comparisons[0].retention
    assert report.diagnosis.perplexity_ratio == pytest.approx(measured, rel=0.1)
    assert "**Where it hurts:**" in (made / "report.markdown").read_text()
    assert "Where it hurts" in capsys.readouterr().out
