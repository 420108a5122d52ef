"""Baselines in a store, through the command."""

import json
from pathlib import Path

import pytest
from github_repository import Repository
from results import result, task

from gate import records
from gate.cli import cli
from gate.errors import BaselineError, BaselineMissingError, SettingsError

MODEL = "quantized_model"


def run(*arguments: str, code: int = 0) -> None:
    assert cli.main(list(arguments), standalone_mode=False) == code


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stored result in the current directory."""
    monkeypatch.chdir(tmp_path)
    records.write(tmp_path / "original.json", result(tasks=(task([1.0]),)))
    return tmp_path / "original.json"


def test_a_baseline_goes_there_and_comes_back(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("baseline", "push", "original.json", "--store", "kept")
    digest = capsys.readouterr().out.split()[0]
    run("baseline", "list", "--store", "kept")
    assert result().model in capsys.readouterr().out
    run("baseline", "show", digest, "--store", "kept")
    assert result().weights_digest in capsys.readouterr().out
    for name in (digest, result().model):
        run("baseline", "pull", name, "--store", "kept", "-o", "again.json")
        assert Path("again.json").read_bytes() == stored.read_bytes()


def test_what_is_missing_is_said(stored: Path) -> None:
    with pytest.raises(BaselineMissingError, match="holds no baseline acme/none"):
        run("baseline", "pull", "acme/none", "--store", "kept", "-o", "x.json")
    with pytest.raises(BaselineError, match=r"x\.json cannot be read"):
        run("baseline", "push", "x.json", "--store", "kept")
    with pytest.raises(SettingsError, match="no store is named"):
        run("baseline", "list")


def test_a_result_that_was_stopped_is_not_kept(stored: Path) -> None:
    value = json.loads(stored.read_text())
    value["tasks"][0]["early_stop"] = {
        "reason": "FAIL", "n_planned": 541, "outcome": "fail", "certain": False
    }  # fmt: skip
    stored.write_text(json.dumps(value))
    with pytest.raises(BaselineError, match="stopped early"):
        run("baseline", "push", "original.json", "--store", "kept")


def test_only_the_newest_of_the_same_stay(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 5):
        records.write(stored, result().model_copy(update={"date": f"2026-11-0{day}T00:00:00Z"}))
        run("baseline", "push", "original.json", "--store", "kept")
    capsys.readouterr()
    run("baseline", "prune", "--keep", "2", "--store", "kept")
    assert capsys.readouterr().out.startswith("2 baselines")
    run("baseline", "pull", result().model, "--store", "kept", "-o", "again.json")
    assert "2026-11-04" in Path("again.json").read_text()


def test_a_check_finds_the_references_baseline_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "models")
    repository.change(sound=[MODEL])
    monkeypatch.chdir(repository.root)
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    (kept,) = (repository.root / "baselines").glob("*.json")
    value = records.read(kept, records.EvalResult)
    settings = repository.root / "quant-gate.yaml"
    reference = f"{value.model}@1a2b3c"
    records.write(kept, value.model_copy(update={"revision": "1a2b3c"}))
    run("baseline", "push", str(kept), "--store", str(tmp_path / "kept"))
    kept.unlink()
    rules = f"checkpoints: [{{path: '**', reference: {reference}}}]\nstore: {tmp_path / 'kept'}\n"
    settings.write_text(settings.read_text() + rules)
    for _ in range(2):  # from the store, then from what was fetched
        run("check", MODEL, "--report", "json=report.json")
        info = records.read(repository.root / "report.json", records.Report).baseline
        assert info is not None
        assert info.fingerprint is not None
