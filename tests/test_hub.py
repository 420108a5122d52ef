"""A checkpoint on the hub: pinned, fetched without code or pickles, named in the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import build
from hub_stub import COMMIT, serve

from gate.errors import BackendUnavailableError
from gate.hub import is_repository, resolve


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name@main", True),
        ("org/name@0e9e39f249a1", True),
        ("org/name", False),
        ("./org/name@main", False),
        ("/org/name@main", False),
        ("../name@main", False),
        ("org/name/sub@main", False),
        ("quantized_model", False),
    ],
)
def test_only_a_pinned_name_is_a_repository(name: str, expected: bool) -> None:
    assert is_repository(name) is expected


def test_a_directory_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name@main").mkdir(parents=True)
    assert resolve("org/name@main").path == Path("org/name@main")


def lint(name: str, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
    }
    return subprocess.run(
        [sys.executable, "-m", "gate", "lint", name],
        cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_pinned_checkpoint_is_fetched_and_judged(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4", shards=2)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    unwanted = {"pytorch_model.bin": b"pickle", "modeling_own.py": b"raise SystemExit"}
    with serve("org/tiny", files | unwanted, "models") as endpoint:
        done = lint("org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"PASS  org/tiny@{COMMIT}")
    fetched = {file.name for file in (tmp_path / "hub").rglob("*") if "snapshots" in file.parts}
    assert files.keys() <= fetched
    assert not fetched & unwanted.keys()


def test_a_repository_that_is_not_there_is_told(tmp_path: Path) -> None:
    with serve("org/tiny", {}, "models") as endpoint:
        done = lint("org/other@main", endpoint, tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "org/other@main cannot be fetched" in done.stderr and "Traceback" not in done.stderr


def test_an_unreachable_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackendUnavailableError, match="org/name@main cannot be fetched"):
        resolve("org/name@main")
