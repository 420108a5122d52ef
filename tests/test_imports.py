"""What other evaluators logged, taken over: real logs, written by the real command."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate import records
from gate.cli import cli
from gate.errors import ImportedError
from gate.evaluators import lm_eval
from gate.harness.task_files import package
from gate.records import EvalResult, Report

DOCUMENTS = 6
LM_EVAL = "import nltk; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"


def tasks(directory: Path) -> list[str]:
    """A multiple-choice task, IFEval on documents of our own, and one whose metric is no mean."""
    data = {
        "rows": [
            {"question": f"{n} and {n} is", "choices": [str(2 * n), str(n), "0"], "answer": 0}
            for n in range(1, DOCUMENTS + 1)
        ],
        "asked": [
            {
                "key": n,
                "prompt": f"Write {n} words, all in lower case and without commas.",
                "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
                "kwargs": [{}, {}],
            }
            for n in range(DOCUMENTS)
        ],
    }
    for name, rows in data.items():
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def source(name: str, split: str) -> dict[str, Any]:
        files = {"data_files": {split: str(directory / f"{name}.jsonl")}}
        return {"dataset_path": "json", "dataset_kwargs": files}

    means = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ]
    median = {"metric": "acc", "aggregation": "median", "higher_is_better": True}
    choice = {
        **source("rows", "test"),
        **{"test_split": "test", "output_type": "multiple_choice", "doc_to_text": "question"},
        **{"doc_to_choice": "choices", "doc_to_target": "answer"},
    }
    written = {
        "sums": choice | {"task": "sums", "metric_list": means},
        "middle": choice | {"task": "middle", "metric_list": [median]},
        "ifeval": {
            "include": str(package() / "tasks" / "ifeval" / "ifeval.yaml"),
            "task": "ifeval",
            **source("asked", "train"),
        },
    }
    for name, task in written.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return [str(directory / f"{name}.yaml") for name in written]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, sentence_data: Path) -> Path:
    """What the command wrote about its own model that answers at random."""
    directory = tmp_path_factory.mktemp("lm_eval")
    command = [sys.executable, "-c", LM_EVAL, "run", "--model", "dummy", "--log_samples"]
    command += ["--tasks", ",".join(tasks(directory)), "--output_path", str(directory / "out")]
    cache = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(directory / "cache")}
    environment = os.environ | cache | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=directory)
    return directory / "out"


@pytest.fixture
def log(logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, beside a checkpoint, in the current directory."""
    build(tmp_path / "model", "FP8")
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(logged, tmp_path / "out"))


def results_of(log: Path) -> tuple[Path, Any]:
    (path,) = log.rglob("results_*.json")
    return path, json.loads(path.read_text(encoding="utf-8"))


def taken_over(log: Path, code: int = 0) -> EvalResult:
    arguments = ["import", "lm-eval", str(log), "--checkpoint", "model", "-o", "result.json"]
    assert cli.main(arguments, standalone_mode=False) == code
    return records.read(Path("result.json"), EvalResult)


def test_every_mean_is_reproduced(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, (_, results) = taken_over(log), results_of(log)
    metrics = {(task.task, task.metric) for task in found.tasks}
    inst = {f"inst_level_{kind}_acc" for kind in ("strict", "loose")}
    prompt = {f"prompt_level_{kind}_acc" for kind in ("strict", "loose")}
    assert metrics == {("ifeval", name) for name in inst | prompt} | {
        ("sums", "acc"), ("sums", "acc_norm")
    }  # fmt: skip
    for task in found.tasks:
        theirs = results["results"][task.task][f"{task.metric},{task.filter}"]
        assert task.value == pytest.approx(theirs, abs=1e-9)
        assert len(task.samples) == DOCUMENTS
    weights = {s.weight for t in found.tasks if t.metric in inst for s in t.samples}
    assert weights == {2.0}
    assert "left out: middle acc" in capsys.readouterr().err


def test_setups_are_what_was_logged(log: Path) -> None:
    found, (_, results) = taken_over(log), results_of(log)
    for setup in found.setups:
        assert setup.task_hash == results["task_hashes"][setup.task]
        assert setup.n_documents == DOCUMENTS
    assert found.setup("ifeval").generation_kwargs["max_gen_toks"] == 1280
    assert found.versions["lm_eval"] == results["lm_eval_version"]


def test_an_imported_result_is_judged_against_another(log: Path) -> None:
    taken_over(log)
    Path("baselines").mkdir()
    shutil.copy("result.json", "baselines/base.json")
    Path("quant-gate.yaml").write_text(
        "version: 1\nbackend: replay\nanswers: result.json\nmetrics: [{task: sums, metric: acc}]\n"
    )
    arguments = ["check", "model", "--baseline", "baselines/base.json", "--report", "json=r.json"]
    assert cli.main(arguments, standalone_mode=False) == 0
    (compared,) = records.read(Path("r.json"), Report).verdict.comparisons
    assert compared.delta == 0
    assert compared.n == DOCUMENTS


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def drop(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def twice(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    path.write_text(f"{first}\n{path.read_text()}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cut off or damaged"),
        (drop, "does not hold all 6 documents"),
        (twice, "document 0 comes twice"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_log_that_is_not_whole_is_refused(
    log: Path, damage: Callable[[Path], None], message: str
) -> None:
    (samples,) = log.rglob("samples_sums_*.jsonl")
    damage(samples)
    with pytest.raises(ImportedError, match=message):
        taken_over(log)


def test_another_chat_template_is_refused(log: Path) -> None:
    path, results = results_of(log)
    results |= {"chat_template": "x", "chat_template_sha": "0" * 64}
    path.write_text(json.dumps(results))
    with pytest.raises(ImportedError, match="another chat template"):
        taken_over(log)


def test_a_directory_without_results_says_what_to_name(log: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportedError) as raised:
        taken_over(tmp_path / "empty")
    assert "--log_samples" in raised.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(data=st.data())
def test_no_content_breaks_reading(logged: Path, tmp_path: Path, data: st.DataObject) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(logged, out)
    path, results = results_of(out)
    if data.draw(st.booleans()):
        results[data.draw(st.sampled_from(sorted(results)))] = data.draw(JSON)
        path.write_text(json.dumps(results))
    else:
        (samples,) = out.rglob("samples_sums_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.sampled_from(sorted(row)))] = data.draw(JSON)
        samples.write_text("\n".join(map(json.dumps, rows)))
    with contextlib.suppress(ImportedError):
        assert lm_eval.read(out).tasks
