"""`gate lint`, `gate explain` and `gate list`, from the command line to the exit code."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_files
import pytest
from checkpoints import build, edit_tensors

from gate.__main__ import main

SETTINGS = "ignore:\n  scale-zero: measured so, on purpose\n"


Said = Callable[..., str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Said:
    """Runs the command in `tmp_path`; everything printed, once the exit code is right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("QUANT_GATE_DEBUG", raising=False)

    def run(code: int, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["gate", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        everything = "".join(capsys.readouterr())
        assert done.value.code == code, everything
        return everything

    return run


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with a sound checkpoint and one with a scale of zero."""
    build(tmp_path / "models" / "sound", "FP8")
    zero_a_scale(build(tmp_path / "models" / "broken", "FP8"))
    return tmp_path


def zero_a_scale(path: Path) -> None:
    def change(tensors: dict) -> None:
        name = next(name for name in tensors if name.endswith("weight_scale"))
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, bytes(len(data)))

    edit_tensors(path, change)


def verdicts(text: str) -> list[str]:
    """First word and name of every report."""
    return [" ".join(line.split()) for line in text.splitlines()
            if line.startswith(("PASS", "FAIL"))]  # fmt: skip


def test_a_directory_of_checkpoints_and_totals(models: Path, said: Said):
    text = said(1, "lint", "models")
    assert verdicts(text) == ["FAIL models/broken", "PASS models/sound"]
    lines = text.splitlines()
    assert lines[1].startswith("scale-zero: ") and lines[2].startswith("Fix: ")
    (found,) = (line for line in lines if line.startswith("error "))
    assert "models/broken/model.safetensors: scale-zero: " in found
    assert lines[-1] == "2 checkpoints: 1 PASS, 1 FAIL; 1 error"


def test_every_format_is_printed_and_stored(models: Path, said: Said):
    named = ("lint", "models/broken", "models/sound")
    documents = [json.loads(line) for line in
                 said(1, *named, "--format", "json").splitlines()]  # fmt: skip
    assert [each["verdict"]["outcome"] for each in documents] == ["fail", "pass"]
    reports = [f"--report={kind}=out/r.{kind}" for kind in ("json", "sarif", "markdown", "text")]
    text = said(1, *named, "--format", "github", *reports)
    assert text.startswith("::error file=models/broken/model.safetensors,title=scale-zero::")
    names = {path.name for path in (models / "out").iterdir()}
    assert names == {"r-1-broken.json", "r-2-sound.json", "r.sarif", "r.markdown", "r.text"}
    (run,) = json.loads((models / "out" / "r.sarif").read_text())["runs"]
    assert len(run["results"]) == 1 and len(run["invocations"]) == 2


def test_what_is_ignored_needs_a_reason_and_is_shown(models: Path, said: Said):
    (models / "quant-gate.yaml").write_text(SETTINGS)
    text = said(0, "lint", "models/broken")
    assert "because: measured so, on purpose" in text and "1 ignored" in text
    (models / "quant-gate.yaml").write_text("ignore:\n  scale-zero: ''\n")
    assert "/ignore/scale-zero" in said(2, "lint", "models/broken")


def test_the_summary_counts_what_is_not_listed(tmp_path: Path, said: Said):
    path = build(tmp_path / "m", "NVFP4", layers=4)

    def change(tensors: dict) -> None:
        for name in [name for name in tensors if name.endswith("weight_scale_2")]:
            tensors[name] = ("F32", (), bytes(4))

    edit_tensors(path, change)
    text = said(1, "lint", "m", "--select", "scale-zero")
    assert "8 more findings of this kind" in text and "Lint    28 errors; 1 rule ran" in text
    assert " parameters in " in text and " stored elements, " in text


def test_selected_rules_only(models: Path, said: Said):
    broken = ("lint", "models/broken")
    text = said(0, *broken, "--select", "no-weights, scale-shape")
    assert "2 rules ran" in text
    said(1, *broken, "--select", "no-weights", "--select", "scale-zero")
    assert "scale-zero" in said(2, *broken, "--select", "scale-zeros")


def test_exit_zero_and_headers_only(models: Path, said: Said):
    assert said(0, "lint", "models/broken", "--exit-zero").startswith("FAIL")
    text = said(0, "lint", "models/broken", "--headers-only")
    assert "skipped --headers-only: " in text


def test_files_of_one_directory_are_judged_together(models: Path, said: Said):
    named = [f"models/{name}/model.safetensors" for name in ("broken", "sound")]
    text = said(1, "lint", *named)
    assert verdicts(text) == [f"FAIL {named[0]}", f"PASS {named[1]}"]
    assert f"error   {named[0]}: scale-zero" in text
    assert "only the named files were judged: " in text


def test_each_gguf_model_of_a_directory_has_its_own_report(tmp_path: Path, said: Said):
    gguf_files.build(tmp_path / "m", name="a-Q4_K_M.gguf")
    gguf_files.build(tmp_path / "m", name="b.gguf", tensors_per_file=20)
    shards = sorted(path.name for path in (tmp_path / "m").iterdir() if path.name.startswith("b-"))
    assert len(shards) > 1
    text = said(0, "lint", "m")
    assert verdicts(text) == ["PASS m/a-Q4_K_M.gguf", f"PASS m ({', '.join(shards[:3])})"]
    named = [f"m/{name}" for name in shards]
    assert len(verdicts(said(0, "lint", "m/a-Q4_K_M.gguf", *named))) == 2
    assert verdicts(said(0, "lint", named[0])) == verdicts(text)[1:], "as what runs them takes it"
    assert "only the named files were judged" in said(1, "lint", named[-1])


def test_a_configuration_stands_for_its_directory(models: Path, said: Said):
    text = said(0, "lint", "models/sound/config.json", "models/sound/model.safetensors")
    assert verdicts(text) == ["PASS models/sound"]
    assert "only the named files" not in text


def test_a_hook_judges_whole_checkpoints_once_and_passes_over_the_rest(models: Path, said: Said):
    for name in ("app", "empty"):
        (models / name).mkdir()
        (models / name / "config.json").write_text('{"port": 80}')
    (models / "empty" / "config.json").write_text('{"model_type": "llama"}')
    changed = [str(path.relative_to(models)) for path in (models / "models" / "sound").iterdir()]
    text = said(0, "lint", "--whole", *changed, "app/config.json")
    assert verdicts(text) == ["PASS models/sound"]
    assert said(0, "lint", "--whole", "app/config.json") == ""
    assert "no-weights" in said(1, "lint", "--whole", "empty/config.json")


def test_compared_with_the_original(models: Path, said: Said):
    build(models / "original", None)
    text = said(1, "lint", "models/sound", "--reference", "original")
    assert "Reference  original: " in text and "worst layers" in text
    both = ("--reference", "original", "--headers-only")
    assert "choose one" in said(2, "lint", "models/sound", *both)


def test_fitted_to_a_target(models: Path, said: Said):
    sound = ("lint", "models/sound")
    text = said(0, *sound, "--runtime", "vllm", "--gpu", "h100", "--context", "64")
    assert "Target" in text and "native FP8" in text and "KV cache" in text
    assert "does-not-fit" in said(1, *sound, "--memory", "1KB")
    assert "h100" in said(2, *sound, "--gpu", "h1000")
    assert "amount" in said(2, *sound, "--memory", "lots")
    assert "--runtime" in said(2, *sound, "--tp", "2")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: "models/none",
        lambda root: str(Path(shutil.copy(root / "models/sound/config.json", root / "a.py")).name),
    ],
    ids=["absent", "no weights"],
)
def test_2_what_is_no_checkpoint(models: Path, said: Said, spoil: Callable[[Path], str]):
    said(2, "lint", "models/sound", spoil(models))


def test_the_manual(said: Said):
    page = said(0, "explain", "scale-zero")
    assert page.startswith("scale-zero\n")
    for title in ("Flags", "Why", "Repair", "Source"):
        assert f"\n{title}\n" in page
    assert "scale-zero" in said(2, "explain", "scale-zeros")
    listed = json.loads(said(0, "list", "rules", "--format", "json"))
    table = said(0, "list", "rules")
    assert all(f" {rule['id']} " in table and rule["repair"] for rule in listed)
