"""LightEval's results, taken over: a recorded run of the real command, and a new one on request."""

import contextlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate import records
from gate.cli import cli
from gate.errors import ImportedError
from gate.evaluators import lighteval
from gate.records import EvalResult, Report

FIXTURES = Path(__file__).parent.parent / "fixtures" / "lighteval"
TASKS = ("own:sums|0", "own:doubles|0", "counting|1", "asked|0")
DOCUMENTS = 6


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the command wrote, beside a checkpoint, in the current directory."""
    build(tmp_path / "model", "FP8")
    monkeypatch.chdir(tmp_path)
    return unpacked(tmp_path / "out")


def unpacked(directory: Path) -> Path:
    with zipfile.ZipFile(FIXTURES / "recorded.zip") as archive:
        archive.extractall(directory)
    return directory


def results_of(log: Path) -> tuple[Path, Any]:
    (path,) = log.rglob("results_*.json")
    return path, json.loads(path.read_text(encoding="utf-8"))


def details_of(log: Path, task: str) -> Path:
    (path,) = log.rglob(f"details_{task}_*.parquet")
    return path


def taken_over(log: Path) -> EvalResult:
    arguments = ["import", "lighteval", str(log), "--checkpoint", "model", "-o", "result.json"]
    assert cli.main(arguments, standalone_mode=False) == 0
    return records.read(Path("result.json"), EvalResult)


def assert_reproduced(found: EvalResult, results: Any) -> None:
    """Every aggregate of the command is the mean over the samples that were taken over."""
    assert {task.task for task in found.tasks} == set(TASKS)
    for task in found.tasks:
        assert abs(task.value - results["results"][task.task][task.metric]) <= 1e-9
        assert [sample.doc_id for sample in task.samples] == list(range(DOCUMENTS))
    metrics = {name.removesuffix("_stderr") for t in TASKS for name in results["results"][t]}
    assert metrics - {task.metric for task in found.tasks} == {"f1"}


def test_every_mean_is_reproduced(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, (_, results) = taken_over(log), results_of(log)
    assert_reproduced(found, results)
    loose = found.task("asked|0", "inst_level_loose_acc")
    assert loose is not None and loose.value == 3 / 9
    assert [sample.weight for sample in loose.samples] == [2, 1, 2, 1, 2, 1]
    assert "left out: counting|1 f1" in " ".join(capsys.readouterr().err.split())


def test_setups_are_what_was_logged(log: Path) -> None:
    counting = taken_over(log).setup("counting|1")
    assert counting is not None
    assert (counting.num_fewshot, counting.n_documents) == (1, DOCUMENTS)
    assert counting.output_type == "generate_until"
    assert counting.generation_kwargs["max_gen_toks"] == 8
    assert counting.generation_kwargs["until"] == [","]
    doubles = taken_over(log).setup("own:doubles|0")
    assert doubles is not None and doubles.output_type == "multiple_choice"


def test_a_file_of_results_does_as_well_as_its_directory(log: Path) -> None:
    path, results = results_of(log)
    assert_reproduced(taken_over(path), results)


def test_an_imported_result_is_judged_against_another(log: Path) -> None:
    taken_over(log)
    Path("baselines").mkdir()
    shutil.copy("result.json", "baselines/base.json")
    Path("quant-gate.yaml").write_text(
        "version: 1\nbackend: replay\nanswers: result.json\n"
        "metrics: [{task: 'own:doubles|0', metric: acc}]\n"
    )
    arguments = ["check", "model", "--baseline", "baselines/base.json", "--report", "json=r.json"]
    assert cli.main(arguments, standalone_mode=False) == 0
    (compared,) = records.read(Path("r.json"), Report).verdict.comparisons
    assert (compared.delta, compared.n) == (0, DOCUMENTS)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def drop(path: Path) -> None:
    rewrite(path, lambda rows: rows[:-1])


def twice(path: Path) -> None:
    rewrite(path, lambda rows: [*rows, rows[0]])


def rewrite(path: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    parquet.write_table(pyarrow.Table.from_pylist(change(rows)), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cut off or damaged"),
        (twice, "a document twice"),
        (Path.unlink, "is missing"),
    ],
)
def test_details_that_are_not_whole_are_refused(
    log: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(details_of(log, "own:doubles|0"))
    with pytest.raises(ImportedError, match=message):
        taken_over(log)


def test_a_missing_document_shows_in_the_mean(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(details_of(log, "own:doubles|0"))
    assert "own:doubles|0" not in {task.task for task in taken_over(log).tasks}
    assert "own:doubles|0 acc: its samples give" in " ".join(capsys.readouterr().err.split())


def test_a_task_names_no_file_elsewhere(log: Path) -> None:
    path, results = results_of(log)
    name, details = "/../../x", details_of(log, "asked|0")
    (details.parent / "details_").mkdir()
    shutil.copy(details, details.parent.parent / f"x_{details.parent.name}.parquet")
    for part in ("config_tasks", "results"):
        results[part] = {name: results[part]["asked|0"]}
    path.write_text(json.dumps(results))
    with pytest.raises(ImportedError, match="is missing"):
        lighteval.read(log)


def test_results_without_details_say_what_to_name(log: Path) -> None:
    shutil.rmtree(log / "details")
    with pytest.raises(ImportedError) as raised:
        taken_over(log)
    assert "--save-details" in raised.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(data=st.data())
def test_no_content_breaks_reading(tmp_path: Path, data: st.DataObject) -> None:
    out = unpacked(tmp_path / "out")
    path, results = results_of(out)
    place = data.draw(st.sampled_from(["details", *sorted(results), *TASKS]))
    if place == "details":
        details = details_of(out, "own:doubles|0")
        content = bytearray(details.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        details.write_bytes(content)
    elif place in TASKS:
        config = results["config_tasks"][place]
        config[data.draw(st.sampled_from(sorted(config)))] = data.draw(JSON)
    else:
        results[place] = data.draw(JSON)
    path.write_text(json.dumps(results))
    with contextlib.suppress(ImportedError):
        assert lighteval.read(out).tasks


@pytest.mark.slow
def test_a_new_run_of_the_command(
    export: Callable[[str], Path],
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = os.environ.get("QUANT_GATE_LIGHTEVAL")
    if command is None:
        pytest.skip("QUANT_GATE_LIGHTEVAL names no lighteval command")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(export("bf16"), "model", symlinks=False)
    # The transformers that LightEval needs calls the tokenizer's class by its older name.
    config = Path("model", "tokenizer_config.json")
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    shutil.copy(FIXTURES / "own_tasks.py", "own_tasks.py")
    arguments = ["accelerate", "model_name=model,batch_size=2,device=cpu", ",".join(TASKS)]
    arguments += ["--custom-tasks", "own_tasks.py", "--output-dir", "out", "--save-details"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "cache"),
        "NLTK_DATA": str(shared_data / "nltk_data"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    subprocess.run([command, *arguments], check=True, capture_output=True, env=environment)
    assert_reproduced(taken_over(Path("out")), results_of(Path("out"))[1])
