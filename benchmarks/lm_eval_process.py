"""The `lm_eval` command on local documents, and commands timed in processes of their own."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TASK = "ifeval"
LM_EVAL = "import nltk; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
"""Two documents ask to count "#" and "!", for which IFEval's scorer draws a letter. Importing
nltk draws too, so it comes before the command sets its seeds, as it does for the harness."""


def command(
    model: Path,
    documents: Path,
    directory: Path,
    *,
    prompts: int,
    tokens: int,
    batch: int,
    device: str,
) -> list[str]:
    """The command that answers IFEval's first prompts; its task file is written to `directory`."""
    import yaml

    from gate.harness.task_files import package

    task = {
        "include": str(package() / "tasks" / TASK / f"{TASK}.yaml"),
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"train": str(documents.resolve())},
            "cache_dir": str(directory),
        },
    }
    file = directory / "task.yaml"
    file.write_text(yaml.safe_dump(task), encoding="utf-8")
    return [
        *(sys.executable, "-c", LM_EVAL, "run", "--model", "hf", "--tasks", str(file)),
        *("--model_args", f"pretrained={model}", "--device", device),
        *("--batch_size", str(batch), "--limit", str(prompts)),
        *("--gen_kwargs", f"max_gen_toks={tokens}", "--apply_chat_template"),
        *("--log_samples", "--output_path", str(directory / "out")),
    ]


def samples(directory: Path) -> list[dict[str, Any]]:
    """What the command logged, one entry a document."""
    (log,) = (directory / "out").glob("**/samples_*.jsonl")
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def first(documents: Path, prompts: int, path: Path) -> None:
    """Write the first so many documents to a file."""
    lines = documents.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:prompts]), encoding="utf-8")


def timed(
    line: Sequence[str],
    ends: Sequence[int] = (0,),
    cwd: Path | None = None,
    environment: Mapping[str, str] = {},
) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command; the latter hold on a busy machine too.

    Raises:
        RuntimeError: It ended with a code that is none of `ends`; with what it said.
    """
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    # Everything is local: neither side is to wait for a hub. Both get the same threads: left
    # alone, lm-eval's use of accelerate takes one for each physical core only.
    alike = {"OMP_NUM_THREADS": str(os.cpu_count())} | os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as cache:  # no batch of an earlier run is taken over
        alike |= {"QUANT_GATE_CACHE": cache} | environment
        done = subprocess.run(line, cwd=cwd, env=alike, capture_output=True, text=True)
    if done.returncode not in ends:
        raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, used
