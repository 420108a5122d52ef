"""The command on SmolLM2-135M by transformers' own quantized layers, stored and made at load."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import native_models
import pytest

from gate.records import EvalResult, Report

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SETTINGS = """version: 1
backend: {backend}
metrics:
  - perplexity: {{file: text.txt, window: 256, windows: 16}}
    max_ratio: {limit}
"""


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path], shared_data: Path
) -> Path:
    """A directory with a text and the baseline that `hf` made."""
    root = tmp_path_factory.mktemp("native_command")
    text = (shared_data / "wikitext-2-raw" / "wiki.test.raw").read_text()[:40_000]
    (root / "text.txt").write_text(text)
    (root / "hf.yaml").write_text(SETTINGS.format(backend="hf", limit="1.10"))
    gate(root, 0, "eval", str(export("bf16")), "--settings", "hf.yaml", "-o", "bf16.json")
    return root


def gate(directory: Path, code: int, *arguments: str) -> None:
    """Run the command in a directory, with as much time as a slow machine takes."""
    environment = os.environ | {"QUANT_GATE_CACHE": str(directory / "cache")}
    command = [sys.executable, "-m", "gate", *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr


def checked(place: Path, checkpoint: Path, limit: str, runtime: str = "") -> Report:
    (place / "native.yaml").write_text(SETTINGS.format(backend="native", limit=limit) + runtime)
    words = ("--settings", "native.yaml", "--baseline", "bf16.json", "--report", "json=report.json")
    gate(place, 0, "check", str(checkpoint), *words)
    return Report.model_validate_json((place / "report.json").read_text())


@pytest.mark.parametrize(
    ("runtime", "limit", "label"),
    [
        ("{load_in_8bit: true}", "1.10", "bitsandbytes INT8"),
        ("{load_in_4bit: nf4}", "1.50", "bitsandbytes NF4"),
    ],
)
def test_quantized_at_load(
    runtime: str, limit: str, label: str, place: Path, export: Callable[[str], Path]
) -> None:
    report = checked(place, export("bf16"), limit, f"runtime_quantization: {runtime}\n")
    assert (report.verdict.outcome, report.runtime_quantization) == ("pass", label)
    (ratio,) = [c for c in report.verdict.comparisons if c.task == "perplexity"]
    assert 1 < ratio.retention < float(limit)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"load_in_8bit": True}, "1.10"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "1.50"),
    ],
)
def test_stored(
    options: Any, limit: str, place: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    path = native_models.bitsandbytes(tmp_path / "stored", export("bf16"), **options)
    report = checked(place, path, limit)
    assert report.verdict.outcome == "pass"
    assert [c.kind for c in report.verdict.concerns if c.kind == "runtime-disagrees"] == []
    found = report.evaluation and report.evaluation.agreement
    assert found is not None and found.kl is not None and found.kl < found.limit
    stored = EvalResult.model_validate(json.loads((place / "bf16.json").read_text()))
    assert stored.backend == "hf" and report.evaluation.backend == "native"
