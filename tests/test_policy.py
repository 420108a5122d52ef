"""Settings, baselines and tasks of the base commit: what a change to them does, and does not."""

import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from checkpoints import build, edit_tensors
from github_repository import SETTINGS, Repository
from hypothesis import given
from hypothesis import strategies as st

from gate import bundle, policy, records
from gate.__main__ import main
from gate.baseline import weights_digest
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import GateError, GitError, SettingsError
from gate.harness import task_files
from gate.policy.files import named
from gate.policy.snapshot import LFS_POINTER
from gate.records import EvalResult, Report
from gate.settings import DEFAULT, CheckpointRule, Settings, load

FILE = Path("quant-gate.yaml")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A base commit whose checkpoint may lose ten documents, and a change that loses twenty."""
    return Repository(tmp_path_factory.mktemp("template") / "models", lost=20)


@pytest.fixture
def repository(tmp_path: Path, template: Repository) -> Repository:
    """A repository for one test."""
    own = copy.copy(template)
    own.root = Path(shutil.copytree(template.root, tmp_path / "models"))
    return own


def check(root: Path, *arguments: str, verb: str = "check") -> tuple[int, str]:
    """The command in `root`: exit code, and all that it printed."""
    said = io.StringIO()
    command = ["gate", verb, "quantized_model", *arguments]
    with (
        contextlib.chdir(root),
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as done,
    ):
        main()
    assert isinstance(done.value.code, int)
    return done.value.code, " ".join(said.getvalue().split())


def judged(repository: Repository, commit: str, code: int) -> tuple[Report, str]:
    """The report and the text of a check by the policy of `commit`."""
    file = repository.root.parent / "report.json"
    found, text = check(
        repository.root, "--policy-commit", commit, "--report", f"json={file}"
    )  # fmt: skip
    assert found == code, text
    return records.read(file, Report), text


@contextlib.contextmanager
def opened(
    repository: Repository, commit: str, file: Path = FILE, **more: bool
) -> Iterator[policy.Trusted]:
    with policy.opened(commit, repository.root / file, **more) as trusted:
        yield trusted


def edit_baseline(root: Path, scores: float) -> None:
    """Make the stored baseline a worse one."""
    file = root / "baselines" / "base.json"
    stored = records.read(file, EvalResult)
    tasks = [
        task.model_copy(
            update={"samples": tuple(s.model_copy(update={"score": scores}) for s in task.samples)}
        )
        for task in stored.tasks
    ]
    records.write(file, stored.model_copy(update={"tasks": tuple(tasks)}))


def test_a_change_neither_lowers_its_limit_nor_its_baseline(repository: Repository) -> None:
    change = repository.change(sound=["quantized_model"])
    (repository.root / FILE).write_text(SETTINGS.replace("0.95", "0.5"))
    edit_baseline(repository.root, 0.5)
    repository.commit("Ask for less")
    assert check(repository.root)[0] == 0, "by its own settings it would pass"
    report, text = judged(repository, change.base, 1)
    assert "may lose 10 net" in text
    assert report.policy is not None and report.policy.commit == change.base
    assert report.policy.changed == ("baselines/base.json", "quant-gate.yaml")
    assert "Not used" in text and "baselines/base.json, quant-gate.yaml" in text
    assert report.baseline is not None and report.baseline.path == "baselines/base.json"
    assert f"--policy-commit {change.base}" in report.command
    assert not report.policy.advisory and not report.policy.references


def test_what_others_merged_since_is_no_change_of_this_one(repository: Repository) -> None:
    change = repository.change(sound=["quantized_model"])
    repository.git("switch", "--quiet", "main")
    (repository.root / FILE).write_text(SETTINGS.replace("0.95", "0.8"))
    latest = repository.commit("Allow more")
    repository.git("switch", "--quiet", "change")
    with opened(repository, latest) as trusted:
        assert trusted.record.changed == ()
        assert str(trusted.settings.task_metrics[0].min_retention) == "0.8"
    with opened(repository, change.base) as trusted:
        assert str(trusted.settings.task_metrics[0].min_retention) == "0.95"


def test_the_first_settings_are_shown_and_decide_nothing(repository: Repository) -> None:
    repository.git("rm", "--quiet", "quant-gate.yaml")
    before = repository.commit("Without settings")
    repository.change(sound=["quantized_model"])
    (repository.root / FILE).write_text(SETTINGS)
    repository.commit("Adopt the gate")
    report, text = judged(repository, before, 0)
    assert report.verdict.outcome == "fail" and text.startswith("FAIL")
    assert report.policy is not None and report.policy.advisory
    assert "decides nothing" in text
    assert report.policy.commit == before


@pytest.mark.parametrize(
    "own", ["allow_unsafe_tasks: [mine]\n", "trust_remote_code: true\n"], ids=["tasks", "model"]
)
def test_the_first_settings_run_no_code(repository: Repository, own: str) -> None:
    repository.git("rm", "--quiet", "quant-gate.yaml")
    before = repository.commit("Without settings")
    (repository.root / FILE).write_text(SETTINGS + own)
    with pytest.raises(SettingsError, match=own.split(":")[0]), opened(repository, before):
        pass


def test_without_settings_anywhere_the_defaults_decide_by_the_commits_baselines(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.git("rm", "--quiet", "quant-gate.yaml")
    before = repository.commit("Without settings")
    (repository.root / "baselines" / "mine.json").write_text("{}")
    repository.commit("Bring a baseline")
    monkeypatch.chdir(repository.root)
    with policy.opened(before, None) as trusted:
        assert trusted.settings == DEFAULT and not trusted.record.advisory
        assert [path.name for path in (trusted.root / "baselines").iterdir()] == ["base.json"]
        assert trusted.record.changed == ("baselines/mine.json",)
    with pytest.raises(SettingsError, match="cannot be read"), opened(repository, before):
        pass


def test_settings_that_the_change_breaks_or_removes_are_the_commits(
    repository: Repository,
) -> None:
    (repository.root / FILE).write_text("version: [")
    repository.commit("Break them")
    with opened(repository, repository.base) as trusted:
        assert trusted.settings.backend == "replay"
    (repository.root / FILE).unlink()
    repository.commit("Remove them")
    with opened(repository, repository.base) as trusted:
        assert trusted.settings.backend == "replay"
        assert trusted.record.changed == ("quant-gate.yaml",)


def with_tasks(repository: Repository, code: str) -> str:
    """Commit a task file with Python beside it, and further files that the settings name."""
    root = repository.root
    for path, text in {
        "tasks/mine.yaml": "task: mine\ninclude: parts/shared.yaml\ndoc_to_text: !function own.ask",
        "tasks/parts/shared.yaml": "output_type: generate_until",
        "tasks/own.py": code,
        "tasks/notes.md": code,
        "more/other.yaml": "task: other",
        "more/words.txt": code,
        "texts/domain.txt": code,
        "documents.jsonl": "{}\n",
        "quant-gate.yaml": SETTINGS
        + "  - {task: tasks/mine.yaml, documents: documents.jsonl}\n"
        + "  - perplexity: {file: texts/domain.txt}\n"
        + "include_path: more\nallow_unsafe_tasks: [mine]\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return repository.commit(code)


def test_tasks_their_python_and_texts_are_the_commits(repository: Repository) -> None:
    base = with_tasks(repository, "sound")
    with_tasks(repository, "evil")
    with opened(repository, base) as trusted:
        written = {
            path.relative_to(trusted.root).as_posix(): path.read_text()
            for path in trusted.root.rglob("*")
            if path.is_file() and path.suffix in {".py", ".txt", ".md", ".yaml", ".jsonl"}
        }
        task = task_files.read(trusted.root / "tasks" / "mine.yaml", [])
        assert task.config["output_type"] == "generate_until"
        (function,) = task.functions
        assert function.file.read_text() == "sound"
        assert trusted.root.stat().st_mode & 0o077 == 0, "nobody else may look or write"
    own = {"tasks/own.py", "more/words.txt", "texts/domain.txt"}
    assert {name for name, text in written.items() if text == "sound"} == own
    assert "evil" not in written.values()
    assert written.keys() == own | {
        "tasks/mine.yaml", "tasks/parts/shared.yaml", "more/other.yaml", "documents.jsonl",
        "quant-gate.yaml",
    }  # fmt: skip
    assert set(trusted.record.changed) == own
    assert not trusted.root.exists(), "the private copy goes with the run"


def test_the_digest_is_that_of_the_same_files_in_a_working_tree(repository: Repository) -> None:
    base = with_tasks(repository, "sound")
    settings, root = load(repository.root / FILE)
    here = policy.working(settings, repository.root / FILE, root)
    with opened(repository, base) as trusted:
        assert trusted.record.digest == here.digest
    for path in ("tasks/own.py", "more/words.txt", "baselines/base.json", "texts/domain.txt"):
        content = (repository.root / path).read_text()
        (repository.root / path).write_text(content + " ")
        assert policy.working(settings, repository.root / FILE, root).digest != here.digest
        (repository.root / path).write_text(content)
    (repository.root / "README.md").write_text("another")
    assert policy.working(settings, repository.root / FILE, root).digest == here.digest


def test_a_task_file_beside_the_settings_counts_once(repository: Repository) -> None:
    (repository.root / "mine.yaml").write_text("task: mine\ndoc_to_text: !function mine.ask")
    (repository.root / "mine.py").write_text("def ask(doc): ...")
    (repository.root / FILE).write_text(SETTINGS + "  - task: mine.yaml\n")
    base = repository.commit("A task beside the settings")
    settings, root = load(repository.root / FILE)
    with opened(repository, base) as trusted:
        written = {path.name for path in trusted.root.iterdir()}
        assert written == {"mine.yaml", "mine.py", "quant-gate.yaml", "answers.json", "baselines"}
        assert trusted.record.digest == policy.working(settings, None, root).digest


def test_no_filter_hook_or_attribute_runs(repository: Repository, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (repository.root / ".gitattributes").write_text("* filter=evil diff=evil text eol=crlf\n")
    base = repository.commit("Attributes")
    for key in ("filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"):
        repository.git("config", key, f"touch {marker}")
    with opened(repository, base) as trusted:
        assert (trusted.root / FILE).read_bytes() == SETTINGS.encode()
    assert not marker.exists()


def test_links_inside_are_followed_and_others_refused(repository: Repository) -> None:
    root = repository.root
    (root / "shared").mkdir()
    (root / "baselines" / "base.json").rename(root / "shared" / "base.json")
    (root / "baselines" / "base.json").symlink_to("../shared/base.json")
    base = repository.commit("Link a file")
    with opened(repository, base) as trusted:
        copied = trusted.root / "baselines" / "base.json"
        assert not copied.is_symlink()
        assert copied.read_bytes() == (root / "shared" / "base.json").read_bytes()
    for target in ("/etc/passwd", "../../outside.json", "base.json", "../shared"):
        (root / "baselines" / "base.json").unlink()
        (root / "baselines" / "base.json").symlink_to(target)
        base = repository.commit(f"Link {target}")
        with pytest.raises(SettingsError, match="leads to no file"), opened(repository, base):
            pass
    (root / "baselines" / "base.json").unlink()
    (root / "baselines").rmdir()
    (root / "baselines").symlink_to("shared")
    base = repository.commit("Link a directory")
    with pytest.raises(SettingsError, match="baselines is a link"), opened(repository, base):
        pass


def test_a_submodule_is_not_entered(repository: Repository) -> None:
    (repository.root / FILE).write_text(SETTINGS + "include_path: more\n")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},more/module")
    repository.git("add", str(FILE))
    repository.git("commit", "--quiet", "-m", "Submodule")
    with opened(repository, "HEAD") as trusted:
        assert not (trusted.root / "more").exists()


def test_settings_below_the_root_may_name_files_beside_them(repository: Repository) -> None:
    root, file = repository.root, Path("ci/quant-gate.yaml")
    (root / "ci").mkdir()
    (root / file).write_text(SETTINGS.replace("answers.json", "../answers.json"))
    (root / "baselines").rename(root / "ci" / "baselines")
    repository.commit("Move the settings")
    with opened(repository, "HEAD", file) as trusted:
        assert (trusted.root / "../answers.json").resolve().is_file()
        assert (trusted.root / "baselines" / "base.json").is_file()
        assert trusted.tree == root / "ci"
        settings, here = load(root / file)
        assert trusted.record.digest == policy.working(settings, root / file, here).digest
    for name, reason in (
        ("../../x.json", "leads out of the repository"),
        (str(root / "answers.json"), "by its absolute path"),
    ):
        (root / file).write_text(SETTINGS.replace("answers.json", name))
        repository.commit("Lead elsewhere")
        with pytest.raises(SettingsError, match=reason), opened(repository, "HEAD", file):
            pass


def test_a_file_of_the_machine_is_read_there_and_counts(
    repository: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "tasks").mkdir(parents=True)
    (outside / "tasks" / "own.yaml").write_text("task: own")
    (outside / "answers.json").write_text("{}")
    text = SETTINGS.replace("answers.json", str(outside / "answers.json"))
    (repository.root / FILE).write_text(text + f"include_path: {outside / 'tasks'}\n")
    base = repository.commit("Name files of the runner")
    settings, root = load(repository.root / FILE)
    digests = set()
    for content in ("task: own", "task: other"):
        (outside / "tasks" / "own.yaml").write_text(content)
        with opened(repository, base) as trusted:
            assert trusted.root / str(trusted.settings.answers) == outside / "answers.json"
            assert not list(trusted.root.rglob("own.yaml"))
            assert trusted.record.digest == policy.working(settings, None, root).digest
            digests.add(trusted.record.digest)
    assert len(digests) == 2


def test_a_commit_that_is_not_here_says_how_to_get_it(repository: Repository) -> None:
    for commit in ("no-such-branch", "--help", ""):
        with pytest.raises(GitError, match="not in this clone"), opened(repository, commit):
            pass
    code, text = check(repository.root, "--policy-commit", "1" * 40)
    assert code == 3 and "is not in this clone" in text and "git fetch" in text


def test_the_commit_alone_is_enough_in_a_shallow_clone(
    repository: Repository, tmp_path: Path
) -> None:
    change = repository.change(sound=["quantized_model"])
    shallow = copy.copy(repository)
    shallow.root = tmp_path / "shallow"
    source = repository.root.as_uri()
    repository.git("clone", "--quiet", "--depth=1", source, str(shallow.root))
    with pytest.raises(GitError, match="not in this clone"), opened(shallow, change.base):
        pass
    shallow.git("fetch", "--quiet", "--depth=1", "origin", change.base)
    with opened(shallow, change.base) as trusted:
        assert trusted.since == change.base and trusted.record.changed == ()
        assert (trusted.root / "baselines" / "base.json").is_file()


def test_messages_name_files_as_the_commit_does(repository: Repository) -> None:
    repository.git("rm", "--quiet", "baselines/base.json")
    base = repository.commit("Lose the baseline")
    code, text = check(repository.root, "--policy-commit", base)
    assert code == 3 and "quant-gate-policy-" not in text
    assert f"baselines holds no baseline (in commit {base[:12]})" in text


def test_a_baseline_of_the_checkout_is_not_taken(repository: Repository) -> None:
    arguments = ["--policy-commit", repository.base, "--baseline", "baselines/base.json"]
    code, text = check(repository.root, *arguments)
    assert code == 2 and "--baseline" in text


def test_a_bundle_that_the_change_brings_is_not_used(repository: Repository) -> None:
    change = repository.change(sound=["quantized_model"])
    (repository.root / bundle.MANIFEST).write_text("{}")
    code, text = check(repository.root)
    assert code == 3 and bundle.MANIFEST in text, "it is not whole"
    assert check(repository.root, "--policy-commit", change.base)[0] == 1


def test_lint_ignores_what_the_commit_ignores(repository: Repository) -> None:
    change = repository.change(broken=["quantized_model"])
    (repository.root / FILE).write_text(SETTINGS + "ignore: {missing-scale: 'not needed'}\n")
    repository.commit("Ignore it")
    assert check(repository.root, verb="lint")[0] == 0
    code, text = check(repository.root, "--policy-commit", change.base, verb="lint")
    assert code == 1 and "missing-scale" in text and "Not used" in text


def pointer(content: bytes) -> tuple[str, str]:
    oid = hashlib.sha256(content).hexdigest()
    head = "version https://git-lfs.github.com/spec/v1\n"
    return oid, f"{head}oid sha256:{oid}\nsize {len(content)}\n"


def in_lfs(repository: Repository, *, stored: bytes | None) -> str:
    """Commit the baseline as a pointer, with this as its object; None for none."""
    file = repository.root / "baselines" / "base.json"
    oid, text = pointer(file.read_bytes())
    file.write_text(text)
    if stored is not None:
        place = repository.root / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(stored)
    return repository.commit("To LFS")


def test_a_baseline_in_lfs_is_the_file_for_which_it_stands(repository: Repository) -> None:
    content = (repository.root / "baselines" / "base.json").read_bytes()
    base = in_lfs(repository, stored=content)
    with opened(repository, base) as trusted:
        assert (trusted.root / "baselines" / "base.json").read_bytes() == content


@pytest.mark.parametrize("stored", [None, bytes.swapcase], ids=["absent", "as long, and another"])
def test_an_lfs_object_that_cannot_be_had_is_an_error_that_says_so(
    repository: Repository, stored: Callable[[bytes], bytes] | None
) -> None:
    repository.git("remote", "set-url", "origin", "https://127.0.0.1:9/none.git")
    content = (repository.root / "baselines" / "base.json").read_bytes()
    base = in_lfs(repository, stored=stored(content) if stored else None)
    with pytest.raises(GitError) as caught, opened(repository, base):
        pass
    assert "baselines/base.json" in caught.value.message and "Git LFS" in caught.value.message
    assert "git lfs fetch" in caught.value.hint


@given(st.binary(max_size=400))
def test_only_whole_pointers_are_pointers(junk: bytes) -> None:
    oid, text = pointer(junk)
    found = LFS_POINTER.fullmatch(text.encode())
    assert found is not None and found[1].decode() == oid and int(found[2]) == len(junk)
    assert LFS_POINTER.fullmatch(junk) is None
    assert not junk.strip() or LFS_POINTER.fullmatch(text.encode() + junk) is None


def pinned(base: str | None, checkpoint: str = "quantized_model") -> str:
    reference = f", reference: {base}" if base else ""
    return SETTINGS + f"checkpoints: [{{path: {checkpoint}{reference}}}]\n"


def keep_baseline(repository: Repository, model: str, revision: str) -> None:
    """Keep the stored baseline as that of a reference on the hub."""
    file = repository.root / "baselines" / "base.json"
    stored = records.read(file, EvalResult)
    named = stored.model_copy(update={"model": model, "revision": revision})
    records.write(file.with_name(f"{revision}.json"), named)


def test_a_new_reference_counts_where_its_baseline_is_kept_already(
    repository: Repository,
) -> None:
    keep_baseline(repository, "acme/model", "aaaa")
    keep_baseline(repository, "acme/model", "bbbb")
    (repository.root / FILE).write_text(pinned("acme/model@aaaa"))
    base = repository.commit("Pin the reference")
    repository.change(sound=["quantized_model"])
    lower = pinned("acme/model@bbbb").replace("0.95", "0.5")
    (repository.root / FILE).write_text(lower)
    repository.commit("Pin another")
    report, text = judged(repository, base, 1)
    assert report.baseline is not None and report.baseline.revision == "bbbb"
    assert report.policy is not None
    (pin,) = report.policy.references
    assert (pin.path, pin.base, pin.head) == (
        "quantized_model", "acme/model@aaaa", "acme/model@bbbb",
    )  # fmt: skip
    assert "acme/model@aaaa before, acme/model@bbbb now" in text
    assert "may lose 10 net" in text, "the limit stays the commit's"

    keep_baseline(repository, "acme/model", "cccc")
    (repository.root / FILE).write_text(pinned("acme/model@cccc"))
    repository.commit("Bring reference and baseline together")
    code, text = check(repository.root, "--policy-commit", base)
    assert code == 3 and "no baseline of acme/model" in text and "gate eval" in text


def test_a_new_checkpoint_may_pin_its_reference(repository: Repository) -> None:
    keep_baseline(repository, "acme/model", "aaaa")
    base = repository.commit("Keep a baseline")
    (repository.root / FILE).write_text(pinned("acme/model@aaaa"))
    repository.commit("Pin it")
    with opened(repository, base) as trusted:
        path = repository.root / "quantized_model"
        assert trusted.rule_for(path).reference == "acme/model@aaaa"
        (pin,) = trusted.record_for(path).references
        assert (pin.base, pin.head) == (None, "acme/model@aaaa")
        assert trusted.record_for(repository.root / "other").references == ()


def test_a_named_baseline_is_not_kept_for_another_reference(repository: Repository) -> None:
    text = pinned("acme/model@aaaa").replace("aaaa}", "aaaa, baseline: baselines/base.json}")
    (repository.root / FILE).write_text(text)
    base = repository.commit("Name a baseline")
    path = repository.root / "quantized_model"
    (repository.root / FILE).write_text(text.replace("aaaa", "bbbb"))
    with opened(repository, base) as trusted:
        rule = trusted.rule_for(path)
        assert (rule.reference, rule.baseline) == ("acme/model@bbbb", None)
    other = text.replace("base.json}", "other.json}")
    (repository.root / FILE).write_text(other)
    with opened(repository, base) as trusted:
        assert trusted.rule_for(path).baseline == "baselines/base.json"


@pytest.mark.parametrize("reference", ["/etc", "../elsewhere"])
def test_a_reference_outside_the_repository_is_not_looked_at(
    repository: Repository, reference: str
) -> None:
    base = repository.base
    (repository.root / FILE).write_text(pinned(reference))
    with (
        pytest.raises(SettingsError, match="outside the repository"),
        opened(repository, base) as trusted,
    ):
        trusted.rule_for(repository.root / "quantized_model")


def test_a_reference_directory_is_known_by_its_bytes(repository: Repository) -> None:
    original = build(repository.root / "original", None, layers=1)
    file = repository.root / "baselines" / "base.json"
    digest = weights_digest(open_checkpoint(original, CONTAINERS))
    stored = records.read(file, EvalResult)
    records.write(file, stored.model_copy(update={"weights_digest": digest}))
    (repository.root / FILE).write_text(pinned("original"))
    base = repository.commit("A reference beside it")
    repository.change(sound=["quantized_model"])
    report, _ = judged(repository, base, 1)
    assert report.baseline is not None and report.baseline.weights_digest == digest
    assert report.size is not None and report.size.reference_bytes
    edit_tensors(original, lambda tensors: tensors.pop("model.norm.weight"))
    code, text = check(repository.root, "--policy-commit", base)
    assert code == 3 and "no baseline of this reference" in text


def test_a_reference_directory_with_other_bytes_is_a_new_reference(
    repository: Repository,
) -> None:
    build(repository.root / "original", None, layers=1)
    (repository.root / FILE).write_text(pinned("original"))
    base = repository.commit("A reference beside it")
    path = repository.root / "quantized_model"
    with opened(repository, base) as trusted:
        assert trusted.record_for(path).references == ()
    (repository.root / "original" / "config.json").write_text("{}")
    repository.commit("Change the reference")
    with opened(repository, base) as trusted:
        (pin,) = trusted.record_for(path).references
    assert pin.base != pin.head
    assert pin.base is not None and pin.base.startswith("original@")


def test_names_with_anything_in_them_come_through(repository: Repository) -> None:
    name = "a \n\"b'|`\t\N{RIGHT-TO-LEFT OVERRIDE}.json"
    (repository.root / "baselines" / name).write_text("{}")
    os.fsencode(name)
    raw = os.fsencode(repository.root / "baselines") + b"/\xff\xfe.json"
    Path(os.fsdecode(raw)).write_text("{}")
    base = repository.commit("Odd names")
    with opened(repository, base) as trusted:
        names = {path.name for path in (trusted.root / "baselines").iterdir()}
        assert {name, os.fsdecode(b"\xff\xfe.json")} <= names
        assert len(trusted.record.digest) == 64


def test_too_many_files_are_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gate.policy.snapshot.MOST_FILES", 1)
    with pytest.raises(SettingsError, match="files"), opened(repository, repository.base):
        pass
    monkeypatch.setattr("gate.policy.snapshot.MOST_FILES", 9)
    monkeypatch.setattr("gate.policy.snapshot.MOST_BYTES", 10)
    with pytest.raises(SettingsError, match="MiB"), opened(repository, repository.base):
        pass
    monkeypatch.setattr("gate.policy.snapshot.MOST_FILE_BYTES", 10)
    with pytest.raises(GateError, match="larger than"), opened(repository, repository.base):
        pass


def test_everything_that_settings_can_name_is_named() -> None:
    text = json.dumps(
        {
            "answers": "a.json",
            "include_path": "./tasks/",
            "checkpoints": [{"path": "m", "baseline": "kept/b.json"}],
            "metrics": [
                {"task": "own/t.yaml", "documents": "d.jsonl"},
                {"perplexity": {"file": "x//t.txt"}},
                {"perplexity": {"dataset": "org/data"}},
            ],
        }
    )
    named = policy.named(Settings.model_validate_json(text))
    assert named.files == {"a.json", "kept/b.json", "own/t.yaml", "d.jsonl", "x/t.txt"}
    for path in ("tasks/any.bin", "own/deep/f.py", "baselines/b.json", "d.jsonl"):
        assert named.holds(path)
    for path in ("own/f.bin", "baselines/b.txt", "tasks.py", "m/config.json"):
        assert not named.holds(path)


def test_distributions_come_with_the_baselines() -> None:
    """They lie beside a baseline, wherever that is kept; nothing else of the directory counts."""
    settings = Settings(checkpoints=(CheckpointRule(baseline="stored/base.json"),))
    wanted = named(settings)
    assert wanted.holds("baselines/0f.npz") and wanted.holds("baselines/base.json")
    assert wanted.holds("stored/0f.npz") and wanted.holds("stored/base.json")
    assert not wanted.holds("stored/other.json") and not wanted.holds("elsewhere/0f.npz")
