"""GGUF files of a real model: judged by `gate check`, and held to llama.cpp's own computation.

QUANT_GATE_TEST_LLAMA_CPP names the Python of an environment with llama-cpp-python, which is built
from its source; without one, what only llama.cpp writes or computes is skipped.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_models
import numpy as np
import pytest
from test_exit_codes import said
from tiny_models import opened

from gate.backends.hf import Hf
from gate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WINDOW, WINDOWS = 256, 8

QUANTIZE = """
import sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
params.nthread = 1
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""

COMPUTE = """
import sys, llama_cpp, numpy
windows = numpy.load(sys.argv[2])
model = llama_cpp.Llama(sys.argv[1], n_ctx=windows.shape[1], n_threads=1, logits_all=True)
found = []
for window in windows:
    model.reset()
    model.eval(window.tolist())
    found.append(model.scores[: len(window)].astype(numpy.float32))
numpy.save(sys.argv[3], numpy.stack(found))
"""


def gate(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gate", *arguments]
    environment = os.environ | {"QUANT_GATE_CACHE": str(directory / "cache"), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def llama_cpp(program: str, *arguments: object) -> None:
    python = os.environ.get("QUANT_GATE_TEST_LLAMA_CPP")
    if python is None:
        pytest.skip("QUANT_GATE_TEST_LLAMA_CPP names no Python with llama-cpp-python")
    command = [python, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Any:
    """Makes the model in some type: by gguf itself, else by llama.cpp out of F16."""
    from transformers import AutoModelForCausalLM

    root, reference = tmp_path_factory.mktemp("gguf"), export("bf16")
    model = AutoModelForCausalLM.from_pretrained(reference, dtype="float32")
    written = {"F16": "F16", "Q8_0": "Q8_0", "TQ2_0": ternary}

    def make(name: str) -> Path:
        path = root / name / "model.gguf"
        if path.is_file():
            return path
        if name in written:
            keys = gguf_models.keys_of(reference)
            return gguf_models.convert(model, path, written[name], tokenizer=keys)
        original = make("F16")
        path.parent.mkdir()
        llama_cpp(QUANTIZE, original, path, name)
        return path

    return make


def ternary(name: str) -> str:
    return "TQ2_0" if "ffn_down" in name else "Q8_0"


@pytest.fixture(scope="module")
def judged(
    tmp_path_factory: pytest.TempPathFactory,
    export: Callable[[str], Path],
    shared_data: Path,
    sentence_data: Path,
) -> Path:
    """A directory with settings and a baseline of the safetensors reference."""
    from gate import demo

    path = tmp_path_factory.mktemp("judged")
    demo.write_inputs(path)
    prompts = (path / "ifeval.jsonl").read_text().splitlines()[:4]
    (path / "ifeval.jsonl").write_text("\n".join(prompts))
    text = {"file": "topics.txt", "window": WINDOW, "windows": WINDOWS}
    task = {"task": "ifeval", "metric": "inst_level_strict_acc", "documents": "ifeval.jsonl"}
    metrics = [{"perplexity": text, "max_ratio": 1.10}, {**task, "max_gen_toks": 32}]
    (path / "quant-gate.yaml").write_text(json.dumps({"version": 1, "metrics": metrics}))
    said(gate(path, "eval", str(export("bf16")), "-o", "baselines/base.json"), 0)
    return path


@pytest.mark.parametrize(("kind", "code"), [("Q8_0", 0), ("TQ2_0", 1)])
def test_a_file_is_judged_by_the_safetensors_reference(
    files: Any, judged: Path, kind: str, code: int
) -> None:
    done = gate(judged, "check", str(files(kind)), "--baseline", "baselines/base.json")
    told = " ".join(said(done, code).split())
    sys.stdout.write(told[:300] + "\n")
    assert told.startswith("PASS" if code == 0 else "FAIL")
    assert f"gguf: {'Q8_0' if code == 0 else 'Q8_0, TQ2_0'}" in told
    assert "its tokens are the same" in told
    assert "weights decoded to bfloat16, inputs not quantized" in told


def test_another_tokenizer_is_not_compared(
    files: Any, judged: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    """A tokenizer.json beside the file that knows fewer merges: a text's tokens tell."""
    (tmp_path / "model.gguf").hardlink_to(files("Q8_0"))
    described = json.loads((export("bf16") / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    described["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            digits,
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": True,
            },
        ],
    }
    described["model"]["merges"] = described["model"]["merges"][:-1000]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    done = gate(judged, "check", str(tmp_path), "--baseline", "baselines/base.json")
    told = " ".join(said(done, 3).split())
    assert "is not comparable: tokens of topics.txt is " in told


def test_log_probabilities_are_those_of_llama_cpp(
    files: Any, shared_data: Path, tmp_path: Path
) -> None:
    """Perplexity rises with fewer bits; each file's distributions agree with llama.cpp's."""
    import torch

    text = (shared_data / "wikitext-2-raw" / "wiki.test.raw").read_text()[:20_000]
    asked = Settings.model_validate({"metrics": [{"task": "ifeval"}]})
    perplexity, divergence = {}, {}
    for kind in ("Q8_0", "Q4_K_M", "Q2_K"):
        file = files(kind)
        checkpoint, form = opened(file.parent)
        with Hf(checkpoint, form, None, asked) as model:
            ids = model.token_ids(text)[: WINDOW * WINDOWS // 2].reshape(-1, WINDOW)
            np.save(tmp_path / "windows.npy", ids)
            with torch.inference_mode():
                ours = model.model(torch.from_numpy(ids)).logits.double().log_softmax(-1)
        llama_cpp(COMPUTE, file, tmp_path / "windows.npy", tmp_path / "logits.npy")
        theirs = torch.from_numpy(np.load(tmp_path / "logits.npy")).double().log_softmax(-1)
        divergence[kind] = float((theirs.exp() * (theirs - ours)).sum(-1).mean())
        targets = torch.from_numpy(ids[:, 1:, None])
        perplexity[kind] = float(ours[:, :-1].gather(-1, targets).mean().neg().exp())
    sys.stdout.write(f"perplexity {perplexity}\nmean KL from llama.cpp {divergence}\n")
    assert perplexity["Q8_0"] < perplexity["Q4_K_M"] < perplexity["Q2_K"]
    assert all(value <= 0.01 for value in divergence.values())
