"""A run that is killed at any point and started again ends as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import HIDDEN, bf16, build, edit_tensors

pytestmark = pytest.mark.model

KILLS = 10
DOCUMENTS = 60
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""The tiny model's tokens."""

SETTINGS = {
    "version": 1,
    "batch_size": 2,
    "early_stop": "off",
    "publish_text": True,
    "metrics": [
        {
            "task": "ifeval",
            "documents": "documents.jsonl",
            "metric": "inst_level_strict_acc",
            "max_gen_toks": 8,
            "min_retention": 0.5,
        },
        {"perplexity": {"file": "text.txt", "window": 32, "windows": 6}},
    ],
}

SERVER = """
import json, os, sys
import lm_eval.api.task, lm_eval.models.huggingface, nltk, torch._dynamo
from transformers import LlamaForCausalLM
import gate.check, gate.cli, gate.reports
from gate.__main__ import main

for line in sys.stdin:
    arguments, cache, log = json.loads(line)
    child = os.fork()
    if not child:
        out = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["QUANT_GATE_CACHE"] = cache
        sys.argv = ["gate", *arguments]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Starts the command as often as it is asked to, each time as a process of its own that need not
import anew what takes seconds to import."""


class Gate:
    """Runs commands in a directory, one at a time."""

    def __init__(self, directory: Path, server: "subprocess.Popen[str]") -> None:
        self.directory, self._server = directory, server

    def start(self, *arguments: str, cache: str = "cache") -> int:
        """Start a command; gives its process id."""
        assert self._server.stdin is not None
        asked = [arguments, str(self.directory / cache), str(self.directory / "log")]
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return int(self._said())

    def ended(self) -> int:
        """Wait for the command's exit code, negative for a signal."""
        return int(self._said())

    def run(self, *arguments: str) -> None:
        """Run a command that is left alone and ends well."""
        self.start(*arguments)
        assert self.ended() == 0, (self.directory / "log").read_text()

    def _said(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, sentence_data: Path) -> Iterator[Gate]:
    """Two tiny checkpoints, a baseline of one, and what runs commands beside them."""
    directory = tmp_path_factory.mktemp("killed")
    for name, algo in (("reference", None), ("quantized", "FP8")):
        make_checkpoint(directory / name, algo)
    (directory / "quant-gate.yaml").write_text(json.dumps(SETTINGS))
    (directory / "text.txt").write_text("A text that is not long, read again and again.\n" * 8)
    documents = (
        {
            "key": key,
            "prompt": f"Write without any comma: {chr(65 + key)}",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for key in range(DOCUMENTS)
    )
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (directory / "documents.jsonl").write_text(lines)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=directory, text=True, env=os.environ.copy(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        made = Gate(directory, server)
        made.run("eval", "reference", "-o", "baseline.json")
        yield made


def make_checkpoint(path: Path, algo: str | None) -> None:
    """A tiny random model that reads and writes characters."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    build(path, algo)

    def set_norms(tensors: dict[str, Any]) -> None:
        tensors |= {name: bf16((HIDDEN,), 1.0) for name in tensors if "norm" in name}

    edit_tensors(path, set_norms)
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="\n", pad_token="\n")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(path)


def check(report: str) -> tuple[str, ...]:
    """The command that judges the candidate."""
    return ("check", "quantized", "--baseline", "baseline.json", "--report", f"json={report}")


def journalled(cache: Path) -> int:
    """Finished pieces of work that an unfinished run has kept."""
    files = list(cache.glob("journal/*.jsonl"))
    assert len(files) <= 1, "a run that is started again goes on with its own journal"
    return sum(file.read_bytes().count(b"\n") for file in files)


def lasting(value: Any) -> Any:
    """A report without times."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in TIMES}
    return [lasting(item) for item in value] if isinstance(value, list) else value


TIMES = frozenset({"date", "duration_s", "command"})


def test_a_run_killed_ten_times_ends_as_if_it_had_been_left_alone(gate: Gate) -> None:
    draw = random.Random(4)
    cache = gate.directory / "killed"
    for _ in range(KILLS):
        before, more = journalled(cache), draw.randint(0, 3)
        child = gate.start(*check("again.json"), cache=cache.name)
        # A life ends after so much work and then anywhere in the next piece; or while it loads.
        deadline = time.monotonic() + 120
        while journalled(cache) < before + more:
            assert time.monotonic() < deadline, (gate.directory / "log").read_text()
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05 if more else 0.5))
        os.kill(child, signal.SIGKILL)
        assert gate.ended() == -signal.SIGKILL, (gate.directory / "log").read_text()
        assert journalled(cache) >= before + more
        assert not (gate.directory / "again.json").exists()
    kept = journalled(cache)
    assert 0 < kept < DOCUMENTS // 2
    gate.run(*check("undisturbed.json"))
    gate.start(*check("again.json"), cache=cache.name)
    assert gate.ended() == 0
    undisturbed, again = (
        lasting(json.loads((gate.directory / name).read_text()))
        for name in ("undisturbed.json", "again.json")
    )
    assert len(undisturbed["evaluation"]["answers"]["ifeval"]) == DOCUMENTS
    assert len({answer["text"] for answer in undisturbed["evaluation"]["answers"]["ifeval"]}) > 4
    assert again == undisturbed
