"""A real FP8 export as vLLM serves it: with other weights than the stored ones, which is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gate.cli import cli

pytestmark = [pytest.mark.model, pytest.mark.slow]

SETTINGS = """
target: {{runtime: vllm, gpu: h100}}
weights: {weights}
checkpoints: [{{path: "**", baseline: baseline.json}}]
metrics:
  - perplexity: {{file: text.txt, window: 512, windows: 4}}
    max_ratio: 1.15
"""


@pytest.mark.parametrize("weights", ["served", "stored"])
def test_fused_layers_are_quantized_again(
    weights: str,
    export: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared_data: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    shutil.copy(shared_data / "wikitext-2-raw" / "wiki.test.raw", tmp_path / "text.txt")
    (tmp_path / "quant-gate.yaml").write_text(SETTINGS.format(weights=weights))
    stored = ["eval", str(export("bf16")), "-o", "baseline.json"]
    assert cli.main(stored, standalone_mode=False) == 0
    shutil.copytree(export("fp8"), "candidate")
    asked = ["check", "candidate", "--report", "json=report.json"]
    assert cli.main(asked, standalone_mode=False) == 0
    target = json.loads(Path("report.json").read_text())["evaluation"]["target"]
    if weights == "served":
        assert target["requantized"] == 150 and 0.001 < target["kl"] < 0.02
        assert not target["differs"]
    else:
        assert target["requantized"] == 0 and target["differs"]
