"""The real command in a process of its own: every exit code, and never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import results
from checkpoints import build, edit_tensors, read_safetensors, write_raw

from gate import baseline, records
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.records import Answer, EvalResult, Report

SETTINGS = """
version: 1
backend: replay
answers: candidate.json
metrics:
  - task: ifeval
    metric: inst_level_strict_acc
    min_retention: 0.95
  - perplexity: {file: domain.txt, window: 101, windows: 3}
    max_ratio: 1.10
"""

SOUND = "A complete answer that ends where it should."


def gate(
    directory: Path, *arguments: str, timeout_s: int = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `directory`."""
    environment = os.environ | {"QUANT_GATE_CACHE": str(directory / "cache"), "COLUMNS": "200"}
    environment.pop("QUANT_GATE_DEBUG", None)
    return subprocess.run(
        [sys.executable, "-m", "gate", *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Everything printed, once the exit code is right and there is no traceback."""
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything
    assert done.returncode == code, everything
    if code not in {0, 1}:
        assert "PASS" not in everything and "FAIL" not in everything, "no verdict was reached"
    return everything


def measured(
    path: Path, scores: Sequence[float], nll: float, answer: str = SOUND, **changes: object
) -> EvalResult:
    """A stored result of the checkpoint at `path`."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    answers = [Answer(doc_id=i, text=answer, tokens=9, finish="stop") for i in range(len(scores))]
    stated = {
        "perplexities": [results.perplexity([nll, nll + 1, nll - 1])],
        "setups": (results.setup(n_documents=len(scores)),),
        "weights_digest": baseline.weights_digest(checkpoint),
        "config_digest": baseline.config_digest(checkpoint),
        "tokenizer_digest": baseline.tokenizer_digest(checkpoint),
        "chat_template_sha": baseline.template_sha(checkpoint),
        "answers": {"ifeval": answers},
    }
    return results.result(results.task(scores), **(stated | changes))


Case = Callable[..., Path]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A directory with an FP8 checkpoint, its stored answers, a baseline and settings."""

    def make(
        candidate: Sequence[float] = (1.0,) * 200,
        nll: float = 300.0,
        reference: Sequence[float] = (1.0,) * 200,
        answer: str = SOUND,
        **changes: object,
    ) -> Path:
        path = build(tmp_path / "quantized_model", "FP8")
        records.write(
            tmp_path / "candidate.json",
            measured(path, candidate, nll, answer, format="modelopt", weight_bits=8),
        )
        stored = measured(path, reference, 300.0, answer, weights_digest="0" * 64, **changes)
        records.write(tmp_path / "baselines" / "base.json", stored)
        (tmp_path / "quant-gate.yaml").write_text(SETTINGS)
        return tmp_path

    return make


def test_0_a_text_without_a_limit_may_be_missing_in_the_baseline(case: Case) -> None:
    directory = case(perplexities=[])
    settings = directory / "quant-gate.yaml"
    without = SETTINGS.replace("    max_ratio: 1.10\n", "")
    settings.write_text(without)
    text = said(gate(directory, "check", "quantized_model"), 0)
    assert "perplexity on domain.txt: the baseline has none" in text
    settings.write_text(SETTINGS)
    text = said(gate(directory, "check", "quantized_model"), 3)
    assert "it has no perplexity on domain.txt" in text


def test_0_pass_with_reports(case: Case) -> None:
    directory = case(candidate=[0.0] * 10 + [1.0] * 190)
    done = gate(
        directory, "check", "quantized_model",
        "--report", "json=out/report.json", "--report", "markdown=out/report.md",
    )  # fmt: skip
    text = said(done, 0)
    first, second = text.splitlines()[:2]
    assert first.startswith("PASS")
    assert "may lose 10 net" in text and "lost 10" in text
    assert second.strip()
    report = json.loads((directory / "out" / "report.json").read_text())
    assert report["verdict"]["outcome"] == "pass"
    assert report["schema_version"] == 1
    assert "PASS" in (directory / "out" / "report.md").read_text().splitlines()[0]


def test_1_fail_on_the_error_budget(case: Case) -> None:
    text = said(gate(case(candidate=[0.0] * 11 + [1.0] * 189), "check", "quantized_model"), 1)
    assert text.startswith("FAIL")
    assert "may lose 10 net" in text.splitlines()[1] and "lost 11" in text.splitlines()[1]


def test_1_garbage_ends_the_task_after_a_few_documents(case: Case) -> None:
    directory = case(candidate=[0.0] * 200)
    text = said(gate(directory, "check", "quantized_model", "--report", "json=judged.json"), 1)
    assert "FAIL after 16 of 200 documents" in text.splitlines()[1]
    assert "EARLY" in text
    report = json.loads((directory / "judged.json").read_text())
    assert len(report["evaluation"]["tasks"][0]["samples"]) == 16
    assert "EARLY" not in said(gate(directory, "check", "quantized_model", "--full"), 1)


def test_a_result_that_was_stopped_early_is_no_baseline(case: Case) -> None:
    directory = case(candidate=[0.0] * 200)
    gate(directory, "check", "quantized_model", "--report", "json=judged.json")
    stopped = records.read(directory / "judged.json", Report).evaluation
    assert stopped is not None
    records.write(directory / "baselines" / "base.json", stopped)
    text = said(gate(directory, "check", "quantized_model"), 3)
    assert "task ifeval was stopped early" in text


def test_1_fail_on_perplexity_ends_the_run(case: Case) -> None:
    text = said(gate(case(nll=312.0), "check", "quantized_model"), 1)
    assert "1.127" in text.splitlines()[1]
    assert "inst_level_strict_acc" not in text, "the tasks were not run"
    assert "Not run" in text and "ifeval: the verdict was settled before" in text


def test_1_fail_on_perplexity_with_full_measures_everything(case: Case) -> None:
    text = said(gate(case(nll=312.0), "check", "quantized_model", "--full"), 1)
    assert "inst_level_strict_acc" in text


def test_1_fail_on_the_canary_shows_both_answers(case: Case) -> None:
    directory = case(answer="again and " * 100)
    text = said(gate(directory, "check", "quantized_model"), 3)
    assert "200 of its 200 answers to ifeval" in text, "the baseline repeats itself as well"
    stored = records.read(directory / "baselines" / "base.json", EvalResult)
    sound = [Answer(doc_id=i, text=SOUND, tokens=9, finish="stop") for i in range(200)]
    records.write(
        directory / "baselines" / "base.json",
        stored.model_copy(update={"answers": {"ifeval": tuple(sound)}}),
    )
    text = said(gate(directory, "check", "quantized_model"), 1)
    assert "again and again" in text and SOUND in text and "repeating" in text


def test_1_fail_by_static_rules_needs_no_baseline(tmp_path: Path) -> None:
    path = build(tmp_path / "m", "FP8")
    edit_tensors(path, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight_scale"))
    text = said(gate(tmp_path, "check", "m"), 1)
    assert text.startswith("FAIL")
    assert "missing-scale" in text and "model.layers.0.mlp.up_proj" in text


@pytest.mark.parametrize("verb", ["lint", "check"])
@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda p: (p / "config.json").write_text("{"), "config-json-unreadable"),
        (lambda p: (p / "hf_quant_config.json").write_text("["), "quant-config-unreadable"),
        (lambda p: write_raw(p / "model.safetensors", b"{}", length=2**60), "header-unreadable"),
        (
            lambda p: os.truncate(
                p / "model.safetensors", (p / "model.safetensors").stat().st_size - 1
            ),
            "shard-truncated",
        ),
        (
            lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"),
            "no-weights",
        ),
    ],
)  # fmt: skip
def test_1_a_defect_of_the_checkpoint_is_a_finding(
    tmp_path: Path, verb: str, damage: Callable[[Path], object], rule: str
) -> None:
    damage(build(tmp_path / "m", "FP8"))
    assert rule in said(gate(tmp_path, verb, "m"), 1)


def test_1_an_unknown_algorithm_is_a_finding_and_a_known_one_without_decoder_is_3(
    tmp_path: Path,
) -> None:
    for algo, code, words in (("FP9", 1, "unknown-algo"), ("FP8_PB", 3, "FP8_PB")):
        path = build(tmp_path / algo, "FP8")
        for name in ("config.json", "hf_quant_config.json"):
            file = path / name
            file.write_text(file.read_text().replace('"FP8"', f'"{algo}"'))
        text = said(gate(tmp_path, "check", algo), code)
        assert words in text


def test_2_missing_path_file_and_wrong_settings(case: Case) -> None:
    directory = case()
    assert "does not exist" in said(gate(directory, "check", "nowhere"), 2)
    assert "is a file" in said(gate(directory, "lint", "quant-gate.yaml"), 2)
    said(gate(directory, "check", "quantized_model", "--no-such-option"), 2)
    (directory / "quant-gate.yaml").write_text(SETTINGS + "  - task: x\n    min_retntion: 0.9\n")
    assert "min_retntion" in said(gate(directory, "check", "quantized_model"), 2)


def test_3_no_baseline_names_the_command_that_makes_it(case: Case) -> None:
    directory = case()
    (directory / "baselines" / "base.json").unlink()
    text = said(gate(directory, "check", "quantized_model"), 3)
    assert "gate eval REFERENCE" in text


def test_3_a_baseline_of_another_suite_is_refused(case: Case) -> None:
    other = results.setup(task_hash="f" * 64, n_documents=200)
    text = said(gate(case(setups=(other,)), "check", "quantized_model"), 3)
    assert "task_hash" in text and "gate eval" in text


def test_3_a_budget_under_five_is_refused_with_the_reason(case: Case) -> None:
    directory = case(candidate=[1.0] * 80, reference=[1.0] * 80)
    text = said(gate(directory, "check", "quantized_model"), 3)
    assert "4 may be lost" in text and "min_retention" in text


def test_3_a_newer_schema_is_refused_and_an_unreadable_file_as_well(case: Case) -> None:
    directory = case()
    file = directory / "baselines" / "base.json"
    value = json.loads(file.read_text())
    file.write_text(json.dumps(value | {"schema_version": 99}))
    command = ("check", "quantized_model", "--baseline", str(file))
    assert "pip install --upgrade quant-gate" in said(gate(directory, *command), 3)
    file.write_text("{")
    said(gate(directory, *command), 3)


def test_3_answers_of_other_bytes_are_refused(case: Case) -> None:
    directory = case()
    path = directory / "quantized_model"
    edit_tensors(path, lambda tensors: tensors.update(_flipped(path)))
    assert "belong to" in said(gate(directory, "check", "quantized_model"), 3)


def _flipped(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    name = "model.norm.weight"
    dtype, shape, data = read_safetensors(path / "model.safetensors")[name]
    return {name: (dtype, shape, bytes([data[0] ^ 1]) + data[1:])}


def test_3_lfs_pointers_in_a_work_tree_are_a_checkout_and_elsewhere_a_finding(
    tmp_path: Path,
) -> None:
    path = build(tmp_path / "repo" / "m", "FP8")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    (path / "model.safetensors").write_text(pointer)
    assert "lfs-pointer" in said(gate(tmp_path, "check", "repo/m"), 1)
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
    assert 'git lfs pull --include "m/**"' in said(gate(tmp_path, "check", "repo/m"), 3)
    assert "lfs-pointer" in said(gate(tmp_path, "lint", "repo/m"), 1)


def test_a_folder_of_checkpoints_is_linted_whole_and_not_judged_as_one(tmp_path: Path) -> None:
    build(tmp_path / "all" / "FP8", "FP8")
    build(tmp_path / "all" / "NVFP4", "NVFP4")
    text = said(gate(tmp_path, "lint", "all"), 0)
    assert text.count("PASS  all/") == 2
    assert "holds 2 checkpoints" in said(gate(tmp_path, "check", "all"), 3)


def test_compare_prints_one_row_a_variant(case: Case) -> None:
    directory = case(candidate=[0.0] * 20 + [1.0] * 180)
    said(gate(directory, "check", "quantized_model", "--full", "--report", "json=judged.json"), 1)
    done = gate(directory, "compare", "baselines/base.json", "candidate.json", "judged.json")
    rows = [line.split() for line in said(done, 1).splitlines() if line.strip()]
    figures = {row[0]: row[1:] for row in rows}
    tail = slice(-2, None)  # beyond the size, which the stored result of this test makes up
    assert figures["candidate"][tail] == figures["judged"][tail]


def test_the_verdict_survives_a_narrow_terminal_and_a_reader_that_leaves(case: Case) -> None:
    directory = case(candidate=[0.0] * 20 + [1.0] * 180)
    command = f"{sys.executable} -m gate check quantized_model"
    for shell in (f"PYTHONIOENCODING=ascii {command} > out.txt", f"{command} | true"):
        done = subprocess.run(
            ["bash", "-c", f"{shell}; exit ${{PIPESTATUS[0]}}"],
            cwd=directory, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "")


def test_a_limit_on_the_command_line_replaces_the_settings(case: Case) -> None:
    directory = case(candidate=[0.0] * 20 + [1.0] * 180)
    said(gate(directory, "check", "quantized_model"), 1)
    assert "may lose 20 net" in said(
        gate(directory, "check", "quantized_model", "--threshold", "0.9"), 0
    )
