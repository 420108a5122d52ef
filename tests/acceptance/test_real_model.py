"""The main path on real ModelOpt exports of SmolLM2-135M: export to exit code."""

import json
import os
import pydoc_data.topics
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import edit_tensors, f32
from test_exit_codes import gate, said

from gate import records
from gate.records import EvalResult

pytestmark = pytest.mark.model

PERPLEXITY_ONLY = """
version: 1
checkpoints:
  - path: "**"
    reference: {reference}
metrics:
  - perplexity: {{file: topics.txt, window: 128, windows: 24}}
    max_ratio: 1.10
"""

WITH_TASK = """
version: 1
batch_size: 2
metrics:
  - task: ifeval
    documents: documents.jsonl
    max_gen_toks: 8
  - perplexity: {file: topics.txt, window: 128, windows: 2}
"""


def workplace(directory: Path, settings: str) -> Path:
    """A working directory with settings, a text and a few IFEval documents."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "quant-gate.yaml").write_text(settings)
    topics = sorted(pydoc_data.topics.topics.items())
    (directory / "topics.txt").write_text("\n\n".join(text for _, text in topics))
    documents = [
        {
            "key": key,
            "prompt": f"Write about {name} without any comma.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for key, (name, _) in enumerate(topics[:16])
    ]
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (directory / "documents.jsonl").write_text(lines)
    return directory


@pytest.fixture(scope="module")
def judged(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]
) -> Callable[[Path, int], str]:
    """Judges a checkpoint against the stored baseline of the BF16 model; gives what was said."""
    directory = workplace(
        tmp_path_factory.mktemp("judged"), PERPLEXITY_ONLY.format(reference=export("bf16"))
    )
    said(gate(directory, "eval", str(export("bf16")), "-o", "baselines/bf16.json"), 0)

    def judge(path: Path, code: int) -> str:
        return said(gate(directory, "check", str(path)), code)

    return judge


def test_the_original_passes_against_its_own_baseline(judged, export) -> None:
    text = judged(export("bf16"), 0)
    assert "1.000 times" in text.splitlines()[1]
    drifted = text.partition("Drift from the baseline")[2]
    assert "0.0000 ± 0.0000" in drifted and "100.0 %" in drifted and "0 / 0" in drifted


def test_the_fp8_export_passes(judged, export) -> None:
    text = judged(export("fp8"), 0)
    assert text.startswith("PASS")
    assert "FP8 static" in text
    assert "Rounding floor" in text
    assert "Drift from the baseline" in text
    assert "a lower bound" in text and "top 64" in text


def test_the_nvfp4_export_fails_on_perplexity(judged, export) -> None:
    text = judged(export("nvfp4"), 1)
    assert text.startswith("FAIL")
    assert "perplexity" in text.splitlines()[1]
    assert "FAIL after 16 of 24 windows, 99.9 % sure" in " ".join(text.split())
    assert "Fix:" in text


def test_exchanged_scales_fail(judged, export, tmp_path: Path) -> None:
    path = tmp_path / "exchanged"
    path.mkdir()
    for file in export("fp8").iterdir():
        (path / file.name).write_bytes(file.read_bytes())

    def exchange(tensors) -> None:
        for name in [n for n in tensors if ".layers.0." in n and n.endswith("weight_scale")]:
            other = name.replace(".layers.0.", ".layers.15.")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    edit_tensors(path, exchange)
    text = judged(path, 1)
    assert text.startswith("FAIL")
    assert "EARLY" in text and "16 of 24 windows" in " ".join(text.split())


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("model.layers.3.mlp.down_proj.weight_scale", (), "implausible-magnitude"),
        ("model.norm.weight", (576,), "NaN or infinite"),
    ],
    ids=["a scale, seen in its bytes", "a norm, seen in the logits"],
)
def test_values_beyond_all_bounds_fail_without_a_figure(
    judged, export, tmp_path: Path, name: str, shape: tuple[int, ...], reason: str
) -> None:
    path = tmp_path / "overflowing"
    path.mkdir()
    for file in export("fp8").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    edit_tensors(path, lambda tensors: tensors.update({name: f32(shape, 3e38)}))
    text = judged(path, 1)
    assert text.startswith("FAIL")
    assert reason in text.splitlines()[1]


def test_an_interrupted_run_exits_130_and_resumes_by_batch(
    tmp_path: Path, export: Callable[[str], Path], sentence_data: Path
) -> None:
    directory = workplace(tmp_path, WITH_TASK)
    command = [sys.executable, "-m", "gate", "eval", str(export("bf16")), "-o", "result.json"]
    environment = {"QUANT_GATE_CACHE": str(directory / "cache")}
    running = subprocess.Popen(
        command,
        cwd=directory,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background of a script, this process may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = wait_for_batches(directory / "cache" / "journal", running)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert not (directory / "result.json").exists()

    # What the journal says is believed: a mark put there must come out in the result.
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    batch = next(line for line in lines if "documents" in line)
    batch["documents"][0]["answer"]["text"] = "from the journal"
    marked = batch["documents"][0]["doc_id"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn": ')
    said(gate(directory, "eval", str(export("bf16")), "-o", "result.json"), 0)
    result = records.read(directory / "result.json", EvalResult)
    answers = {answer.doc_id: answer.text for answer in result.answers["ifeval"]}
    assert len(answers) == 16
    assert answers[marked] == "from the journal"
    assert list(answers.values()).count("from the journal") == 1
    assert not journal.exists(), "a completed run leaves no journal"


def wait_for_batches(directory: Path, running: subprocess.Popen[str]) -> Path:
    """The journal, as soon as it holds two batches."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        for journal in directory.glob("*.jsonl") if directory.is_dir() else ():
            if journal.read_text().count('"documents"') >= 2:
                return journal
        time.sleep(0.02)
    pytest.fail(f"no batch was journalled: {running.stderr.read() if running.stderr else ''}")
