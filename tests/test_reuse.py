"""A kept verdict: returned for the same bytes under the same rules, and for nothing else."""

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import edit_tensors, write_json
from github_repository import SETTINGS, Repository

from gate import records
from gate.cli import cli
from gate.errors import BaselineMissingError
from gate.records import EvalResult, Report

MODEL = "quantized_model"
FILE = "quant-gate.yaml"
Judge = Callable[..., Report]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A sound change, checked out."""
    made = Repository(tmp_path_factory.mktemp("template") / "models")
    made.change(sound=[MODEL])
    return made


@pytest.fixture
def repository(tmp_path: Path, template: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository for one test, which is the current directory, and an empty cache."""
    own = copy.copy(template)
    own.root = Path(shutil.copytree(template.root, tmp_path / "models"))
    monkeypatch.setenv("QUANT_GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(own.root)
    return own


@pytest.fixture
def judge(repository: Repository, tmp_path: Path) -> Judge:
    """Judges the checkpoint by the command; the report that it stores."""

    def check(*options: str, code: int = 0) -> Report:
        file = tmp_path / "report.json"
        file.unlink(missing_ok=True)
        arguments = ["check", MODEL, "--report", f"json={file}", *options]
        assert cli.main(arguments, standalone_mode=False) == code
        return records.read(file, Report)

    return check


def kept(tmp_path: Path) -> list[Path]:
    """Every verdict in the cache."""
    return sorted((tmp_path / "cache" / "verdicts").glob("*"))


def backdate(tmp_path: Path, date: str = "2026-01-01T00:00:00+00:00") -> str:
    """Let the kept verdict be an old one."""
    (file,) = kept(tmp_path)
    report = records.read(file, Report)
    records.write(file, report.model_copy(update={"date": date}))
    return date


def test_the_same_bytes_are_not_judged_twice(
    judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = judge("--reuse")
    assert first.reused_from is None
    date = backdate(tmp_path)
    for _ in range(2):
        again = judge("--reuse")
        assert again.reused_from == date and again.date != date
        assert again.verdict == first.verdict and again.evaluation == first.evaluation
        assert again.baseline == first.baseline and again.settings == first.settings
    assert f"from the run of {date}" in " ".join(capsys.readouterr().out.split())
    assert len(kept(tmp_path)) == 1


def test_without_the_option_nothing_is_kept_or_returned(judge: Judge, tmp_path: Path) -> None:
    judge()
    assert kept(tmp_path) == []
    judge("--reuse")
    assert judge().reused_from is None


def test_fresh_judges_anew_and_keeps_that(judge: Judge, tmp_path: Path) -> None:
    judge("--reuse")
    backdate(tmp_path)
    fresh = judge("--fresh")
    assert fresh.reused_from is None
    assert judge("--reuse").reused_from == fresh.date


CHANGES: dict[str, Callable[[Path], object]] = {
    "config.json": lambda root: write_json(
        root / MODEL / "generation_config.json", {"eos_token_id": 3}
    ),
    "tokenizer": lambda root: (root / MODEL / "tokenizer.model").write_bytes(b"tokens"),
    "a limit": lambda root: (root / FILE).write_text(SETTINGS.replace("0.95", "0.94")),
    "a comment in the settings": lambda root: (root / FILE).write_text(SETTINGS + "# why\n"),
    "the answers": lambda root: (root / "answers.json").write_text(
        (root / "answers.json").read_text() + "\n"
    ),
    "the baseline": lambda root: records.write(
        root / "baselines" / "base.json",
        records.read(root / "baselines" / "base.json", EvalResult).model_copy(
            update={"device": "another"}
        ),
    ),
    "a directory beside the weights": lambda root: (root / MODEL / "original").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_is_judged_anew(
    judge: Judge, repository: Repository, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    judge("--reuse")
    change(repository.root)
    assert judge("--reuse").reused_from is None
    assert len(kept(tmp_path)) == 2


def test_other_weights_are_judged_anew(
    judge: Judge, repository: Repository, tmp_path: Path
) -> None:
    judge("--reuse")

    def broken(tensors: dict[str, object]) -> None:
        tensors.pop("model.layers.0.mlp.up_proj.weight_scale")

    edit_tensors(repository.root / MODEL, broken)
    assert judge("--reuse", code=1).verdict.stage == "lint"
    date = judge("--reuse", code=1).reused_from
    assert date is not None, "a verdict of static validation is kept, too: a waiver refers to it"
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("options", [("--full",), ("--threshold", "0.9"), ("--publish-text",)])
def test_other_options_are_judged_anew(judge: Judge, options: tuple[str, ...]) -> None:
    judge("--reuse")
    assert judge("--reuse", *options).reused_from is None
    assert judge("--reuse", *options).reused_from is not None


def test_another_device_or_version_is_judged_anew(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge("--reuse")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert judge("--reuse").reused_from is None
    monkeypatch.setattr("gate.reuse.__version__", "99")
    assert judge("--reuse").reused_from is None


def test_a_queue_reuses_what_the_pull_request_was_judged_by(
    judge: Judge, repository: Repository
) -> None:
    first = judge("--reuse", "--policy-commit", repository.base)
    repository.git("switch", "--quiet", "main")
    (repository.root / "README.md").write_text("another\n")
    later = repository.commit("Another merge")
    repository.git("switch", "--quiet", "change")
    again = judge("--reuse", "--policy-commit", later)
    assert again.reused_from == first.date
    assert again.policy is not None and again.policy.commit == later
    repository.git("switch", "--quiet", "main")
    (repository.root / FILE).write_text(SETTINGS.replace("0.95", "0.96"))
    stricter = repository.commit("Allow less")
    repository.git("switch", "--quiet", "change")
    assert judge("--reuse", "--policy-commit", stricter, code=0).reused_from is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 99}', b"\xff" * 9])
def test_what_is_no_report_is_ignored_and_replaced(
    judge: Judge, tmp_path: Path, content: bytes
) -> None:
    judge("--reuse")
    (file,) = kept(tmp_path)
    file.write_bytes(content)
    assert judge("--reuse").reused_from is None
    assert judge("--reuse").reused_from is not None


def test_without_a_verdict_nothing_is_kept(
    judge: Judge, repository: Repository, tmp_path: Path
) -> None:
    (repository.root / "baselines" / "base.json").unlink()
    with pytest.raises(BaselineMissingError):
        judge("--reuse")
    assert kept(tmp_path) == []


def test_the_one_used_longest_ago_goes(
    judge: Judge, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gate.reuse.MOST_REPORTS", 2)
    judge("--reuse")
    (first,) = kept(tmp_path)
    judge("--reuse", "--full")
    (second,) = set(kept(tmp_path)) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    judge("--reuse")  # uses the first one
    judge("--reuse", "--threshold", "0.9")
    assert first in kept(tmp_path) and second not in kept(tmp_path)
    assert len(kept(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_costs_no_verdict(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "verdicts").write_text("in the way")
    assert judge("--reuse").verdict.outcome == "pass"


def test_only_the_owner_reads_kept_verdicts(judge: Judge, tmp_path: Path) -> None:
    judge("--reuse")
    assert (tmp_path / "cache" / "verdicts").stat().st_mode & 0o077 == 0
