"""Models that do not fit: what is measured of them, and what is not."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from checkpoints import VOCAB, bf16, build, edit_tensors
from tiny_models import opened

from gate import check, devices, records
from gate.errors import BackendUnavailableError
from gate.placement import Placement, place
from gate.preflight import streams
from gate.records import EvalResult, Report
from gate.request import Request
from gate.settings import Settings
from gate.size import decoded_bytes, part_bytes, workspace_bytes

GIB = 2**30
TEXT = {"perplexity": {"file": "text.txt", "window": 16, "windows": 6}, "max_ratio": 1.05}
TASK = {"task": "ifeval", "documents": "documents.jsonl", "max_gen_toks": 4}
GATING = TASK | {"metric": "prompt_level_strict_acc", "min_score": 0.01}


def settings(*metrics: dict[str, Any], **options: Any) -> Settings:
    return Settings.model_validate({"memory": "stream", "metrics": metrics or [TEXT], **options})


@pytest.mark.parametrize(
    ("memory", "available", "expected"),
    [
        ("auto", 100, False),
        ("auto", 20, True),
        ("resident", 100, False),
        ("stream", 100, True),
        ("stream", 20, True),
    ],
)
def test_what_does_not_fit_is_streamed(memory: Any, available: int, expected: bool) -> None:
    assert streams(memory, 40 * GIB, 2 * GIB, available * GIB) is expected


@pytest.mark.parametrize(
    ("memory", "available", "needed"),
    [("resident", 20, r"54\.5 GiB"), ("auto", 5, r"5\.1 GiB"), ("stream", 5, r"5\.1 GiB")],
)
def test_what_fits_in_no_way_is_refused(memory: Any, available: int, needed: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"{needed} and there are"):
        streams(memory, 40 * GIB, 2 * GIB, available * GIB)


def test_what_the_gpus_do_not_hold_goes_to_the_host_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = devices.Device(0, "GPU-0", "H100", 30 * GIB)
    monkeypatch.setattr(devices, "found", lambda: (gpu,))
    free = psutil.virtual_memory()._replace(available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert streams("auto", 40 * GIB, 2 * GIB) is True
    with pytest.raises(BackendUnavailableError, match=r"54\.5 GiB and there are 30\.0 GiB") as told:
        streams("resident", 40 * GIB, 2 * GIB)
    assert "memory: offload" in told.value.hint
    assert streams("offload", 40 * GIB, 2 * GIB) is False
    with pytest.raises(BackendUnavailableError, match=r"and there are 70\.0 GiB"):
        streams("offload", 60 * GIB, 2 * GIB)
    path = build(tmp_path, None)
    with pytest.raises(BackendUnavailableError, match="native leaves nothing of the model in the"):
        place(settings(memory="offload", backend="native"), *opened(path))


def test_exactly_what_is_needed_is_enough() -> None:
    part = 2 * GIB
    assert streams("auto", 40 * GIB, part, part + workspace_bytes(part))
    with pytest.raises(BackendUnavailableError):
        streams("auto", 40 * GIB, part, part + workspace_bytes(part) - 1)


@pytest.mark.parametrize("algo", [None, "FP8", "NVFP4"])
def test_the_largest_part_is_a_layer_with_all_its_experts(algo: str | None, tmp_path: Path) -> None:
    """Decoded, at two bytes a weight, whatever it takes on disk."""
    path = build(tmp_path, algo, experts=4)
    attention, experts = 2 * 64 * 64 + 2 * 32 * 64, 4 * 3 * 128 * 64
    assert part_bytes(*opened(path)) == 2 * (attention + experts + 4 * 64 + 2 * 64)


def test_an_embedding_may_be_the_largest_part(tmp_path: Path) -> None:
    path = build(tmp_path, None)
    wide = "model.embed_tokens.weight"
    edit_tensors(path, lambda tensors: tensors.update({wide: bf16((5000, 64))}))
    assert part_bytes(*opened(path)) == 2 * 5000 * 64


def test_a_layer_at_a_time_is_told_beforehand(tmp_path: Path) -> None:
    """For `gate doctor`."""
    path = build(tmp_path, "FP8")
    found = place(settings(), *opened(path))
    assert found == Placement(decoded_bytes(*opened(path)), part_bytes(*opened(path)), True)
    assert "streams layer by layer" in str(found)
    assert "loaded as a whole" in str(place(settings(memory="auto"), *opened(path)))


STREAMED = Placement(40 * GIB, 2 * GIB, True)


@pytest.mark.parametrize(
    ("measured", "named"),
    [
        (settings(TEXT, GATING), "ifeval"),
        (settings(TEXT, TASK | {"metric": "acc", "min_retention": 0.9}), "ifeval"),
        (settings(TEXT, speed={"max_ms_per_token": 40}), "speed"),
        (settings(GATING, speed={"max_peak_bytes": 10**9}), "ifeval, speed"),
    ],
)
def test_what_decides_and_takes_answers_needs_the_whole_model(
    measured: Settings, named: str
) -> None:
    with pytest.raises(BackendUnavailableError, match=rf"{named} cannot be .*40\.0 GiB"):
        STREAMED.require_answers(measured)
    assert Placement().require_answers(measured) == ()


def test_what_decides_nothing_is_left_out_and_named() -> None:
    measured = settings(TEXT, TASK, speed={})
    tasks, speed = STREAMED.require_answers(measured)
    assert tasks.startswith("ifeval: ") and speed.startswith("speed: ")
    with pytest.raises(BackendUnavailableError, match="ifeval, speed"):
        STREAMED.require_answers(measured, advisory=True)
    assert STREAMED.require_answers(settings()) == ()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer of words, in a directory with a text and documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("work")
    path = build(root / "reference", None)
    words = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, VOCAB)}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>").save_pretrained(path)
    (root / "text.txt").write_text(" ".join(f"w{2 + i * i % (VOCAB - 2)}" for i in range(200)))
    rules = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    lines = [json.dumps({"key": key, "prompt": f"w{key}"} | rules) for key in range(2, 8)]
    (root / "documents.jsonl").write_text("\n".join(lines))
    return path


def request(path: Path, measured: Settings, **options: Any) -> Request:
    root = path.parent
    return Request(
        checkpoint=str(path),
        settings=measured,
        root=root,
        command="",
        progress=lambda label, total: nullcontext(lambda done: None),
        store=lambda found: records.write(root / "stored.json", found),
        baseline=root / "base.json",
        **options,
    )


@pytest.fixture(scope="module")
def stored(reference: Path, sentence_data: Path) -> EvalResult:
    """The baseline, of the model that was loaded as a whole."""
    patch = pytest.MonkeyPatch()
    patch.setenv("QUANT_GATE_CACHE", str(reference.parent / "cache"))
    found = check.measure(request(reference, settings(TEXT, TASK, memory="resident")))
    records.write(reference.parent / "base.json", found)
    patch.undo()
    return found


def judged(path: Path, measured: Settings, monkeypatch: Any, **options: Any) -> Report:
    monkeypatch.setenv("QUANT_GATE_CACHE", str(path.parent / "cache"))
    return check.check(request(path, measured, **options))


@pytest.fixture(scope="module")
def damaged(reference: Path) -> Path:
    """The same model, sure of what is wrong: its last norm is 4,096 times as large."""
    path = shutil.copytree(reference, reference.parent / "damaged")
    name = "model.norm.weight"

    def enlarge(tensors: dict[str, Any]) -> None:
        dtype, shape, raw = tensors[name]
        # In bfloat16 the exponent begins at bit 7.
        tensors[name] = (dtype, shape, (np.frombuffer(raw, "<u2") + (12 << 7)).tobytes())

    edit_tensors(path, enlarge)
    return path


@pytest.mark.model
def test_texts_alone_give_a_verdict(
    reference: Path, stored: EvalResult, damaged: Path, monkeypatch: Any
) -> None:
    """The figures are those of the loaded model."""
    report = judged(reference, settings(), monkeypatch)
    assert report.verdict.outcome == "pass" and report.evaluation is not None
    assert report.evaluation.perplexities == stored.perplexities
    for full in (False, True):
        failed = judged(damaged, settings(TEXT, GATING), monkeypatch, full=full)
        assert (failed.verdict.outcome, failed.verdict.stage) == ("fail", "perplexity")


@pytest.mark.model
def test_a_task_that_decides_ends_without_a_verdict_after_the_texts(
    reference: Path, stored: EvalResult, monkeypatch: Any
) -> None:
    with pytest.raises(BackendUnavailableError, match="no damage; ifeval cannot be measured"):
        judged(reference, settings(TEXT, GATING), monkeypatch)


@pytest.mark.model
def test_a_task_that_decides_nothing_is_left_out(
    reference: Path, stored: EvalResult, monkeypatch: Any
) -> None:
    report = judged(reference, settings(TEXT, TASK), monkeypatch)
    assert report.verdict.outcome == "pass" and report.evaluation is not None
    assert report.evaluation.tasks == ()
    assert any(line.startswith("ifeval: the model was") for line in report.evaluation.unread)


def test_a_baseline_with_tasks_needs_the_whole_model_before_anything_is_read(
    reference: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("gate.run.Run.texts", lambda *_: pytest.fail("was read"))
    with pytest.raises(BackendUnavailableError, match="ifeval cannot be measured"):
        check.measure(request(reference, settings(TEXT, TASK)))
