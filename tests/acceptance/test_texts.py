"""The real command: which texts a report holds, and what it tells of a baseline."""

import json
from pathlib import Path

import pytest
import results
from checkpoints import build
from test_exit_codes import SETTINGS, gate, measured, said

from gate import records
from gate.records import EvalResult, Part, Report

SECRET = "What only the user's own suite would ask for."


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A failing candidate on documents of the user's own."""
    path = build(tmp_path / "quantized_model", "FP8")
    setups = (results.setup(n_documents=200, documents="f" * 64),)
    candidate = measured(
        path, [0.0] * 20 + [1.0] * 180, 300.0, SECRET, format="modelopt", setups=setups
    )
    records.write(tmp_path / "candidate.json", candidate.model_copy(update={"weight_bits": 8}))
    base = measured(path, [1.0] * 200, 300.0, SECRET, weights_digest="0" * 64, setups=setups)
    records.write(tmp_path / "baselines" / "base.json", base)
    (tmp_path / "quant-gate.yaml").write_text(SETTINGS)
    return tmp_path


def judged(directory: Path, *options: str) -> Report:
    reports = [f"{kind}=out.{kind}" for kind in ("json", "markdown", "text", "sarif", "github")]
    named = [word for report in reports for word in ("--report", report)]
    text = said(gate(directory, "check", "quantized_model", "--full", *named, *options), 1)
    everything = text + "".join(file.read_text() for file in directory.glob("out.*"))
    assert (SECRET in everything) == bool(options)
    return Report.model_validate(json.loads((directory / "out.json").read_text()))


def test_own_texts_are_in_no_report_unless_asked_for(own: Path) -> None:
    report = judged(own)
    assert report.private_tasks == ("ifeval",)
    assert [flip.doc_id for flip in report.flips] == list(range(10))
    report = judged(own, "--publish-text")
    assert [flip.candidate for flip in report.flips] == [SECRET] * 10
    assert report.private_tasks == ()


def test_the_baseline_is_known_by_its_fingerprint(own: Path) -> None:
    first = judged(own).baseline
    file = own / "baselines" / "base.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"date": "2026-11-20T10:00:00Z", "device": "cuda"}))
    again = judged(own).baseline
    file.write_text(json.dumps(stored | {"dtype": "float16"}))
    other = judged(own).baseline
    assert first and again and other
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(first.fingerprint or "") == 64


def test_kinds_of_instruction_come_through_a_replay(own: Path) -> None:
    for file in (own / "candidate.json", own / "baselines" / "base.json"):
        stored = records.read(file, EvalResult)
        (task,) = stored.tasks
        parts = tuple((Part(kind="a:b", score=sample.score),) for sample in task.samples)
        named = task.model_copy(update={"parts": parts})
        records.write(file, stored.model_copy(update={"tasks": (named,)}))
    (change,) = judged(own).instructions
    assert (change.kind, change.n, change.baseline, change.candidate) == ("a:b", 200, 200.0, 180.0)
