"""A run in parts, or by several processes: what comes of it is what one run gives."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from test_killed_runs import make_checkpoint

from gate import baseline, merge, records
from gate.backends.replicas import Replicas
from gate.cli import cli
from gate.drift import reading
from gate.errors import BackendError, BaselineError, GateError, MergeError
from gate.records import EvalResult, Report, Shard

pytestmark = pytest.mark.model

DOCUMENTS = 23
SHARDS = 4
SETTINGS = {
    "version": 1,
    "batch_size": 2,
    "metrics": [
        {
            "task": "ifeval",
            "documents": "documents.jsonl",
            "metric": "inst_level_strict_acc",
            "max_gen_toks": 8,
            "min_retention": 0.5,
        },
        {"perplexity": {"file": "text.txt", "window": 32, "windows": 9}, "max_ratio": 1.05},
    ],
}
OF_ITS_OWN = {"date", "duration_s", "shards", "distributions"}


def gate(*arguments: str) -> Any:
    return cli.main(list(arguments), standalone_mode=False)


def write_documents(directory: Path, count: int = DOCUMENTS) -> None:
    lines = [
        json.dumps(
            {
                "key": key,
                "prompt": f"Write without any comma: {chr(65 + key) * (1 + key * 7 % 5)}",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
            }
        )
        for key in range(count)
    ]
    (directory / "documents.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, sentence_data: Path) -> Path:
    """A directory with one run of a tiny model as a whole, and the same in four parts."""
    directory = tmp_path_factory.mktemp("shards")
    make_checkpoint(directory / "model", None)
    (directory / "quant-gate.yaml").write_text(json.dumps(SETTINGS))
    (directory / "two.yaml").write_text(json.dumps(SETTINGS | {"replicas": 2}))
    (directory / "text.txt").write_text("A text that is not long, read again and again.\n" * 8)
    write_documents(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("QUANT_GATE_CACHE", str(directory / "cache"))
        patch.setattr(reading, "BATCH_TOKENS", 2 * 32)
        gate("eval", "model", "-o", "whole/result.json")
        for index in range(1, SHARDS + 1):
            gate("eval", "model", "--shard", f"{index}/{SHARDS}", "-o", f"parts/{index}.json")
    return directory


def parts(directory: Path) -> list[Path]:
    return sorted((directory / "parts").glob("*.json"))


def changed(directory: Path, tmp_path: Path, **changes: Any) -> list[Path]:
    """The parts, of which the third says something else."""
    one, two, three, four = parts(directory)
    other = tmp_path / "other.json"
    records.write(other, records.read(three, EvalResult).model_copy(update=changes))
    return [four, other, one, two]


def test_four_shards_are_the_single_run_sample_for_sample(measured: Path, tmp_path: Path) -> None:
    whole = records.read(measured / "whole/result.json", EvalResult)
    merged = merge.merge(parts(measured)[::-1], tmp_path)
    for field in EvalResult.model_fields.keys() - OF_ITS_OWN:
        assert getattr(merged, field) == getattr(whole, field), field
    assert (merged.shards, merged.shard, whole.shards) == (SHARDS, None, 1)
    assert len(merged.tasks[0].samples) == DOCUMENTS
    ours, theirs = merged.distribution("text.txt"), whole.distribution("text.txt")
    assert ours is not None and ours == theirs, "the same file, byte for byte"
    answers = merged.distribution("ifeval", "answers"), whole.distribution("ifeval", "answers")
    assert answers[0] and answers[1] and answers[0].tokens == answers[1].tokens
    assert all((tmp_path / f"{kept.digest}.npz").is_file() for kept in merged.distributions)


def test_no_shard_measures_what_another_does(measured: Path) -> None:
    found = [records.read(path, EvalResult) for path in parts(measured)]
    sizes = [len(result.tasks[0].samples) for result in found]
    assert sizes == [6, 6, 6, 5], "twelve batches, by turns"
    assert [len(result.perplexities[0].window_nll) for result in found] == [3, 2, 2, 2]


def test_a_merged_result_is_a_baseline_and_answers_to_judge(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(measured)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(measured / "cache"))
    assert gate("merge", *map(str, parts(measured)), "-o", "baselines/base.json") == 0
    options = ("--answers", "whole/result.json", "--report", "json=report.json")
    assert gate("check", "model", *options) == 0
    report = records.read(measured / "report.json", Report)
    assert report.verdict.outcome == "pass" and report.baseline is not None
    assert report.baseline.path == "baselines/base.json"
    options = ("--answers", "baselines/base.json", "--report", "json=report.json")
    assert gate("check", "model", *options) == 0
    report = records.read(measured / "report.json", Report)
    assert report.evaluation is not None and report.evaluation.shards == SHARDS


def test_missing_doubled_and_whole_results_are_refused(measured: Path, tmp_path: Path) -> None:
    one, two, three, four = parts(measured)
    with pytest.raises(MergeError, match="of 4 shards 2/4, 4/4 are missing"):
        merge.merge([one, three], tmp_path)
    with pytest.raises(MergeError, match=r"shard 2/4 is named twice: .*2\.json, .*2\.json"):
        merge.merge([one, two, two, three, four], tmp_path)
    with pytest.raises(MergeError, match="a whole result"):
        merge.merge([measured / "whole/result.json"], tmp_path)
    found = records.read(one, EvalResult)
    assert found.shard is not None
    other = Shard(index=1, count=3, settings=found.shard.settings)
    with pytest.raises(MergeError, match=r"is shard 1/3, and .* is 4/4"):
        merge.merge(changed(measured, tmp_path, shard=other), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 4}, "batch_size is 2 and 4"),
        ({"weights_digest": "0" * 64}, "weights_digest is .* and 0{64}"),
        ({"chat_template_sha": None}, "chat_template_sha is .* and none"),
        ({"seed": "other"}, "seed is .* and other"),
        ({"versions": {"torch": "1.0"}}, r"versions.torch is .* and 1\.0"),
        ({"device": "NVIDIA H100"}, "device is cpu and NVIDIA H100"),
        ({"kernel": "another"}, "kernel is .* and another"),
        ({"shard": Shard(index=3, count=4, settings="0" * 64)}, "the settings are others"),
        ({"tasks": ()}, "hold 17 of the 23 documents of ifeval"),
    ],
)
def test_shards_of_another_run_are_refused(
    measured: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(MergeError, match=said):
        merge.merge(changed(measured, tmp_path, **changes), tmp_path)


def test_what_a_shard_does_not_hold_is_seen(measured: Path, tmp_path: Path) -> None:
    three = records.read(parts(measured)[2], EvalResult)
    one = records.read(parts(measured)[0], EvalResult)
    setup = three.setups[0].model_copy(update={"num_fewshot": 3})
    with pytest.raises(MergeError, match=r"setups\.0\.num_fewshot is 0 and 3"):
        merge.merge(changed(measured, tmp_path, setups=(setup,)), tmp_path)
    with pytest.raises(MergeError, match=r"document .* is in .* and in another shard"):
        merge.merge(changed(measured, tmp_path, tasks=one.tasks), tmp_path)
    with pytest.raises(MergeError, match=r"shard 3/4 of text\.txt"):
        merge.merge(changed(measured, tmp_path, perplexities=one.perplexities), tmp_path)
    (text,) = three.perplexities
    with pytest.raises(MergeError, match=r"every window of text\.txt"):
        merge.merge(changed(measured, tmp_path, perplexities=()), tmp_path)
    other = text.model_copy(update={"tokens_digest": "0" * 64})
    with pytest.raises(MergeError, match="tokens_digest of text"):
        merge.merge(changed(measured, tmp_path, perplexities=(other,)), tmp_path)
    with pytest.raises(BaselineError, match="cannot be read"):
        merge.merge(changed(measured, tmp_path), tmp_path)


def test_a_part_is_no_baseline(measured: Path) -> None:
    with pytest.raises(BaselineError, match="is shard 1/4 of a run") as refused:
        baseline.load(parts(measured)[0])
    assert "gate merge" in refused.value.hint


@pytest.mark.parametrize("asked", ["0/4", "5/4", "2", "a/b", "1/1025", "-1/4"])
def test_a_shard_is_one_of_how_many(measured: Path, asked: str) -> None:
    import click

    with pytest.raises((click.UsageError, GateError), match="of how many"):
        gate("eval", str(measured / "model"), f"--shard={asked}", "-o", "never.json")


def test_a_repeat_is_of_a_whole_run(measured: Path) -> None:
    import click

    with pytest.raises(click.UsageError, match="without --shard"):
        gate("eval", "model", "--shard", "1/2", "--repeat", "2", "-o", "never.json")


@pytest.fixture
def here(measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(measured)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(measured / "cache"))
    monkeypatch.setattr(reading, "BATCH_TOKENS", 2 * 32)
    return measured


def assert_same(one: EvalResult | None, other: EvalResult | None) -> None:
    assert one is not None and other is not None
    for field in EvalResult.model_fields.keys() - {"date", "duration_s", "replicas"}:
        assert getattr(other, field) == getattr(one, field), field


def test_a_dead_process_is_named_and_what_both_measured_stays(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process takes up what two have left, and ends as one that was alone from the start."""
    original, asked = Replicas.score_each, []

    def watched(self: Replicas, task: str, batches: Any) -> Any:
        asked.append(len(batches))
        if len(asked) == 5:
            os.kill(self._processes[1]._process.pid or 0, signal.SIGKILL)
        return original(self, task, batches)

    monkeypatch.setattr(Replicas, "score_each", watched)
    with pytest.raises(BackendError, match=r"replica 2 of 2 \(process \d+\) has ended: SIGKILL"):
        gate("eval", "model", "--settings", "two.yaml", "-o", "two/result.json")
    assert multiprocessing.active_children() == []
    (journal,) = (here / "cache" / "journal").glob("*.jsonl")
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    batches = [entry["doc_ids"] for entry in kept if "doc_ids" in entry]
    assert asked[:5] == [2] * 5 and len(batches) > 8, "what the other one measured meanwhile, too"
    gate("eval", "model", "-o", "two/result.json")
    whole = records.read(here / "whole/result.json", EvalResult)
    assert_same(whole, records.read(here / "two/result.json", EvalResult))


@pytest.mark.slow
def test_a_check_by_two_processes_is_that_by_one(here: Path) -> None:
    """The quantized model, with early stopping and the baseline's distributions."""
    make_checkpoint(here / "quantized", "FP8")
    found = []
    for name in ("quant-gate", "two"):
        options = ("--settings", f"{name}.yaml", "--report", f"json={name}-report.json")
        gate("check", "quantized", "--baseline", "whole/result.json", *options)
        found.append(records.read(here / f"{name}-report.json", Report))
    one, two = found
    assert one.evaluation and two.evaluation and two.evaluation.drifts
    assert (one.evaluation.replicas, two.evaluation.replicas) == (1, 2)
    assert_same(one.evaluation, two.evaluation)
    assert one.verdict.outcome == two.verdict.outcome
