"""What `gate detect` names, the other commands take."""

import json
import subprocess
import sys
from pathlib import Path

import gguf_files
import pytest
from checkpoints import build
from histories import History


def gate(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "gate", *arguments],
        cwd=directory, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two GGUF models in one directory, one of them a series; and a ModelOpt checkpoint."""
    root = tmp_path_factory.mktemp("repository") / "models"
    history = History(root)
    gguf_files.build(root / "g", name="a.gguf", layers=1)
    gguf_files.build(root / "g", name="b.gguf", layers=2, tensors_per_file=8)
    build(root / "m", layers=1)
    history.git("add", "--all")
    history.git("-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-qm", "models")
    return root


def test_detected_checkpoints_are_judged_by_their_names(repository: Path) -> None:
    done = gate(repository, "detect", "--format", "matrix")
    named = [entry["checkpoint"] for entry in json.loads(done.stdout)["include"]]
    assert named == ["g/a.gguf", "g/b-00001-of-00003.gguf", "m"]
    report = repository.parent / "report.json"
    for name in named:
        done = gate(repository, "lint", "--report", f"json={report}", "--", name)
        assert done.returncode == 0, done.stdout
    done = gate(repository, "lint", "--report", f"json={report}", "--", named[1])
    files = json.loads(report.read_text())["files"]
    assert files == [f"b-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_a_gguf_model_is_opened_and_compared_with_a_baseline(repository: Path) -> None:
    done = gate(repository, "check", "--", "g/b-00001-of-00003.gguf")
    assert done.returncode == 3 and "holds no baseline" in done.stderr
    (repository / "g" / "a.gguf").write_bytes(b"GGUF")
    done = gate(repository, "check", "--", "g/a.gguf")
    assert done.returncode == 1 and done.stdout.startswith("FAIL")
