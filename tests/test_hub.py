"""A checkpoint on the hub: pinned, fetched without code or pickles, named in the report."""

import mmap
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import checkpoints
import layouts
import pytest
from checkpoints import build
from hub_stub import COMMIT, serve
from hypothesis import given
from hypothesis import strategies as st

from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import BackendUnavailableError
from gate.hub import is_repository, joined, resolve


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


def lint(name: str, endpoint: str, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secret",
    }
    return subprocess.run(
        [sys.executable, "-m", "gate", "lint", name, *options],
        cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_pinned_checkpoint_is_judged_where_it_lies(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4", shards=2)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    unwanted = {"pytorch_model.bin": b"pickle" * 500, "modeling_own.py": b"raise SystemExit" * 500}
    moved: Counter[str] = Counter()
    with serve("org/tiny", files | unwanted, "models", moved) as endpoint:
        done = lint("org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"PASS  org/tiny@{COMMIT}")
    assert not moved.keys() & unwanted.keys()
    assert not [file for file in tmp_path.rglob("*") if "snapshots" in file.parts]


def test_a_defect_is_seen_from_afar(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4")
    nan = ("F8_E4M3", (64, 4), b"\x7f" * 256)
    scale = "model.layers.1.self_attn.q_proj.weight_scale"
    checkpoints.edit_tensors(path, lambda tensors: tensors.update({scale: nan}))
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    with serve("org/tiny", files, "models") as endpoint:
        done = lint("org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scale-not-finite" in done.stdout and scale in done.stdout


def mapped(path: Path) -> dict[str, mmap.mmap]:
    """Files of any size, none of them read."""
    contents = {}
    for file in path.iterdir():
        with file.open("rb") as opened:
            contents[file.name] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return contents


@pytest.mark.parametrize(
    ("model", "shards", "options"),
    [
        (layouts.MOE_700GB, 160, ["--headers-only"]),
        (layouts.LLAMA_8B, 4, []),
    ],
    ids=["MoE of 742 GB, headers", "8B NVFP4, headers and scales"],
)
def test_no_weight_is_moved(
    model: layouts.Model, shards: int, options: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    layouts.write(path, model, shards, scales=not options)
    moved: Counter[str] = Counter()
    with serve("org/big", mapped(path), "models", moved) as endpoint:
        done = lint("org/big@main", endpoint, tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    opened = open_checkpoint(path, CONTAINERS)
    allowed: Counter[str] = Counter()
    for info in opened.tensors.values():
        if not options and "scale" in info.name:
            allowed[info.file] += info.nbytes
    for name in opened.weight_files:
        header = int.from_bytes(opened.store.read(name, 0, 8), "little")
        assert 0 < moved[name] <= 8 + header + allowed[name] + 100_000, name
    shutil.rmtree(path)


def test_the_token_stays_with_the_endpoint(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    here, there = set[str](), set[str]()
    moved: Counter[str] = Counter()
    with (
        serve("org/tiny", files, "models", moved, tokens=there) as store,
        serve("org/tiny", files, "models", tokens=here, elsewhere=store) as endpoint,
    ):
        done = lint("org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert here == {"Bearer hf_secret"} and there == set()
    assert moved["model.safetensors"] > 0


def test_a_server_without_ranges_is_told(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    files["model.safetensors"] += b"\0" * 100_000
    with serve("org/tiny", files, "models", ranges=False) as endpoint:
        done = lint("org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "does not serve byte ranges" in done.stderr


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 300))), st.integers(0, 500))
def test_joined_ranges_hold_what_was_asked_and_little_more(
    asked: list[tuple[int, int]], budget: int
) -> None:
    ranges = [(begin, begin + length) for begin, length in asked]
    parts = joined(ranges, budget)
    wanted = {place for begin, end in ranges for place in range(begin, end)}
    fetched = [place for begin, end in parts for place in range(begin, end)]
    assert len(fetched) == len(set(fetched)) and wanted <= set(fetched)
    assert len(fetched) <= len(wanted) + budget
    assert parts == sorted(parts)


def test_a_repository_that_is_not_there_is_told(tmp_path: Path) -> None:
    with serve("org/tiny", {}, "models") as endpoint:
        done = lint("org/other@main", endpoint, tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "org/other@main cannot be fetched" in done.stderr and "Traceback" not in done.stderr


def test_an_unreachable_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackendUnavailableError, match="org/name@main cannot be fetched"):
        resolve("org/name@main")
