"""Real servers on this machine: `transformers serve`, and llama.cpp's own with a quantized model.

QUANT_GATE_TEST_SERVE names the Python of an environment with transformers[serving],
QUANT_GATE_TEST_LLAMA that of one with xllamacpp, which brings llama.cpp's server.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gguf_files import real_file
from test_exit_codes import gate, said
from tiny_models import opened

from gate.backends.hf import Hf
from gate.backends.server import Server
from gate.harness import Harness
from gate.records import ScoredDocument
from gate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPTS = int(os.environ.get("QUANT_GATE_TEST_PROMPTS", "40"))
NEW_TOKENS = 48
POSITIONS = 12
"""Of each prompt of which the next token is compared."""

COMMIT = "a" * 40

LLAMA = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.model_alias = 4096, 2, {sys.argv[3]}
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
time.sleep(3600)
"""


def environment_of(variable: str) -> str:
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no Python with such a server")
    return python


@contextlib.contextmanager
def started(command: Sequence[str], port: int, **variables: str) -> Iterator[str]:
    """A server's address, once it lists its models."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/models"):
                    break
                time.sleep(0.5)
            assert process.poll() is None, "it ended before it served anything"
            yield url
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def transformers_serve(checkpoint: Path, root: Path, dtype: str) -> Iterator[str]:
    """transformers' server over a checkpoint, which it lists as acme/model."""
    python = environment_of("QUANT_GATE_TEST_SERVE")
    repository = root / "models--acme--model"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT, copy_function=os.symlink)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    port = free_port()
    module = "from transformers.cli.transformers import app; app()"
    arguments = ["serve", "acme/model", "--dtype", dtype, "--device", "cpu", "--port", str(port)]
    offline = {"HF_HUB_CACHE": str(root), "HF_HUB_OFFLINE": "1"}
    with started([python, "-c", module, *arguments], port, **offline) as url:
        yield url


@contextlib.contextmanager
def llama_server(file: Path) -> Iterator[str]:
    """llama.cpp's server over a GGUF file, which it lists as smollm2."""
    python, port = environment_of("QUANT_GATE_TEST_LLAMA"), free_port()
    with started([python, "-c", LLAMA, str(file), str(port), "smollm2"], port) as url:
        yield url


def settings(url: str, documents: Path, **server: Any) -> Settings:
    metric = {"task": "ifeval", "documents": str(documents), "max_gen_toks": NEW_TOKENS}
    return Settings.model_validate(
        {"backend": "server", "server": {"url": url, **server}, "metrics": [metric]}
    )


@pytest.fixture(scope="module")
def documents(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, sentence_data: Path
) -> Path:
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    lines = (shared_data / "ifeval" / "input_data.jsonl").read_text().splitlines()
    path.write_text("\n".join(lines[:PROMPTS]))
    return path


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Path:
    """The weights of the GGUF file, exactly, as a checkpoint in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path, file = tmp_path_factory.mktemp("float32"), real_file()
    AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype="float32",
    ).save_pretrained(path)
    AutoTokenizer.from_pretrained(export("bf16")).save_pretrained(path)
    return path


def alike(ours: Sequence[ScoredDocument], theirs: Sequence[ScoredDocument]) -> tuple[float, float]:
    """Shares of documents with the same scores, and with the same text; differences are printed."""
    scores = texts = 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.prompt_hash == other.prompt_hash
        assert one.answer is not None and other.answer is not None
        same = [p.score for p in one.points] == [p.score for p in other.points]
        scores, texts = scores + same, texts + (one.answer.text == other.answer.text)
        if one.answer.text != other.answer.text:
            told = f"{one.doc_id} {same=}\n  {one.answer.text!r}\n  {other.answer.text!r}\n"
            sys.stdout.write(told)
    sys.stdout.write(f"scores {scores}/{len(ours)}, texts {texts}/{len(ours)}\n")
    return scores / len(ours), texts / len(ours)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_transformers_server_scores_as_hf_over_the_same_weights(
    float32: Path, documents: Path, tmp_path: Path, api: str
) -> None:
    checkpoint, form = opened(float32)
    with transformers_serve(float32, tmp_path, "float32") as url:
        asked = settings(url, documents, api=api, concurrency=1)
        harness = Harness.of(asked, checkpoint, tmp_path)
        server = Server(checkpoint=checkpoint, harness=harness, settings=asked)
        assert server.served.model == "acme/model"
        assert server.served.prompts == {"completions": "text", "chat": "messages"}[api]
        ids = server.doc_ids("ifeval")
        served = server.score("ifeval", ids)
    with Hf(checkpoint, form, harness, asked) as model:
        assert model.dtype == "float32"
        own = [one for doc_id in ids for one in model.score("ifeval", [doc_id])]
    scores, _ = alike(served, own)
    assert scores >= 0.95


def test_llama_cpp_takes_the_same_next_token_as_hf(
    float32: Path, documents: Path, tmp_path: Path
) -> None:
    import torch

    checkpoint, form = opened(float32)
    with llama_server(real_file()) as url:
        asked = settings(url, documents)
        harness = Harness.of(asked, checkpoint, tmp_path)
        assert harness is not None
        server = Server(checkpoint=checkpoint, harness=harness, settings=asked)
        assert server.served.owner == "llamacpp" and server.served.prompts == "tokens"
        assert server.context == 2048
        same = total = 0
        with Hf(checkpoint, form, harness, asked) as model:
            for doc_id in harness.doc_ids("ifeval"):
                ids = model.token_ids(harness.prompt("ifeval", doc_id))
                with torch.inference_mode():
                    logits = model.model(torch.from_numpy(ids[None])).logits[0]
                step = max(1, len(ids) // POSITIONS)
                ends = range(step, len(ids) + 1, step)
                for end in ends:
                    payload = {"prompt": ids[:end].tolist(), "max_tokens": 1, "temperature": 0}
                    reply = server._client.post(
                        "completions", payload | {"model": "smollm2"}, "say the next token"
                    )
                    best = int(logits[end - 1].argmax())
                    expected = model.tokenizer.decode([best], skip_special_tokens=True)
                    same += reply["choices"][0]["text"] == expected
                    total += 1
    sys.stdout.write(f"the same next token at {same} of {total} positions\n")
    assert same >= 0.95 * total


def test_a_quantized_model_on_llama_cpp_is_judged_by_its_original_there(
    export: Callable[[str], Path], documents: Path, tmp_path: Path
) -> None:
    original, quantized = tmp_path / "original", tmp_path / "quantized"
    shutil.copytree(export("bf16"), original)
    quantized.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(original / name, quantized / name)
    shutil.copy(real_file(), quantized / "model.gguf")
    with llama_server(real_file()) as url:
        metric = {
            "task": "ifeval",
            "metric": "inst_level_strict_acc",
            "documents": str(documents),
            "max_gen_toks": NEW_TOKENS,
        }
        stated = {
            "version": 1,
            "backend": "server",
            "server": {"url": url},
            "metrics": [metric, {"perplexity": {"file": str(documents), "window": 64}}],
        }
        (tmp_path / "quant-gate.yaml").write_text(json.dumps(stated))
        text = said(gate(tmp_path, "eval", "original", "-o", "baselines/base.json"), 0)
        assert "perplexity on documents.jsonl: the server was asked to give" in " ".join(
            text.split()
        )
        done = gate(tmp_path, "check", "quantized", "--baseline", "baselines/base.json")
        told = " ".join(said(done, 0).split())
    assert "the answers are those of smollm2 at 127.0.0.1:" in told
    assert "kernel unknown to the gate; prompts sent as tokens" in told
