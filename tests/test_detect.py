"""Which checkpoints a change touches: real repositories, and what a runner's clone lacks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from github_stub import Entry, State, serve
from github_stub import Tree as StoredTree
from histories import Content, History, Link, Submodule, checkpoint, pointer
from hypothesis import given
from hypothesis import strategies as st

from gate import git
from gate.commits import Change
from gate.containers import CONTAINERS
from gate.detect import detect, lfs_oid, matrix
from gate.errors import GateError, GitError, SettingsError
from gate.git import parse_tree
from gate.github.api import Client
from gate.records import ChangedCheckpoint, Detection
from gate.reports import detection as text
from gate.settings import CheckpointRule, Settings

OID, OTHER = "1" * 64, "2" * 64
Make = Callable[[dict[str, Content]], History]


@pytest.fixture
def start(tmp_path: Path) -> Make:
    """A repository whose first commit holds some files."""

    def make(files: dict[str, Content]) -> History:
        history = History(tmp_path / "repository")
        history.commit({"README.md": "# Models", **files})
        return history

    return make


def between(history: History, base: str = "main~1", head: str = "main", **more: Any) -> Detection:
    """What `head` has that `base` has not."""
    change = Change(head, base, more.pop("since", "merge base"))
    return detect(git.find(history.root), change, CONTAINERS, **more)


def changed(history: History, files: dict[str, Content], **more: Any) -> list[tuple[str, str]]:
    """Change and path of each checkpoint that a commit of these files touches."""
    history.commit(files)
    return kinds(between(history, **more))


def kinds(detection: Detection) -> list[tuple[str, str]]:
    return [(found.change, found.path) for found in detection.checkpoints]


class TestWhatChanged:
    """Each kind of change."""

    def test_nothing(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        assert changed(history, {"README.md": "# Other", "src/main.py": "pass"}) == []

    def test_added(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        assert changed(history, checkpoint("models/b")) == [("added", "models/b")]

    def test_modified_with_its_files(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        weights, config = "models/a/model.safetensors", "models/a/config.json"
        history.commit({weights: "other", config: "{ }", "models/a/README.md": "# Better"})
        (found,) = between(history).checkpoints
        assert found.change == "modified"
        assert found.files == (config, weights)

    def test_removed_is_told_and_cannot_be_judged(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        history.commit(dict.fromkeys(checkpoint("models/a")))
        detection = between(history)
        assert kinds(detection) == [("removed", "models/a")]
        assert detection.present == () and matrix(detection) == {"include": []}

    def test_renamed_even_with_another_config(self, start: Make) -> None:
        files = checkpoint("models/a")
        history = start(files)
        moved = {path.replace("models/a", "archive/b"): text for path, text in files.items()}
        moved["archive/b/config.json"] = "{ }"
        history.commit({**dict.fromkeys(files), **moved})
        (found,) = between(history).checkpoints
        assert (found.change, found.path, found.previous) == ("renamed", "archive/b", "models/a")

    def test_a_copy_is_added(self, start: Make) -> None:
        files = checkpoint("models/a")
        copy = {path.replace("models/a", "models/b"): text for path, text in files.items()}
        assert changed(start(files), copy) == [("added", "models/b")]

    def test_two_renamed_at_once_keep_apart(self, start: Make) -> None:
        files = checkpoint("a") | checkpoint("b")
        history = start(files)
        moved = {f"models/{path}": content for path, content in files.items()}
        history.commit({**dict.fromkeys(files), **moved})
        found = [(one.path, one.previous) for one in between(history).checkpoints]
        assert found == [("models/a", "a"), ("models/b", "b")]

    def test_two_with_the_same_weights_that_are_renamed_at_once(self, start: Make) -> None:
        history = start({"a/model.safetensors": "x", "b/model.safetensors": "x"})
        gone = {"a/model.safetensors": None, "b/model.safetensors": None}
        history.commit({**gone, "c/model.safetensors": "x", "d/model.safetensors": "x"})
        found = [(one.change, one.path, one.previous) for one in between(history).checkpoints]
        assert found == [("renamed", "c", "a"), ("renamed", "d", "b")]

    def test_lost_weights_leave_a_checkpoint_that_is_judged(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        lost = {"models/a/model.safetensors": None, "models/a/hf_quant_config.json": None}
        assert changed(history, lost) == [("modified", "models/a")]

    def test_a_file_that_becomes_a_link_with_the_same_text(self, start: Make) -> None:
        history = start({"models/a/model.safetensors": "../b"})
        assert changed(history, {"models/a/model.safetensors": Link("../b")}) == [
            ("modified", "models/a")
        ]


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("config.json", True),
        ("generation_config.json", True),
        ("hf_quant_config.json", True),
        ("quantize_config.json", True),
        ("tokenizer.json", True),
        ("tokenizer.model", True),
        ("merges.txt", True),
        ("chat_template.jinja", True),
        ("modeling_custom.py", True),
        ("optimizer.pt", True),
        ("additional/tokenizer_config.json", True),
        ("README.md", False),
        ("LICENSE.txt", False),
        ("figures/loss.png", False),
        (".gitattributes", False),
    ],
)
def test_which_files_are_part_of_a_checkpoint(start: Make, file: str, counts: bool) -> None:
    history = start(checkpoint("models/a"))
    expected = [("modified", "models/a")] if counts else []
    assert changed(history, {f"models/a/{file}": "other"}) == expected


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["config.json"], []),
        (["package.json", "app/index.js"], []),
        (["data.bin"], []),
        (["config.json", "data.bin"], ["m"]),
        (["pytorch_model.bin"], ["m"]),
        (["pytorch_model-00001-of-00002.bin"], ["m"]),
        (["consolidated.00.pth"], ["m"]),
        (["model.pt"], ["m"]),
        (["remodel.pt"], []),
        (["hf_quant_config.json"], ["m"]),
        (["quantize_config.json"], ["m"]),
        (["model.safetensors.index.json"], ["m"]),
        (["pytorch_model.bin.index.json"], ["m"]),
        (["adapter_model.safetensors"], ["m"]),
        (["model.gguf"], ["m"]),
    ],
)
def test_what_makes_a_directory_a_checkpoint(
    start: Make, files: Sequence[str], found: Sequence[str]
) -> None:
    new: dict[str, Content] = {f"m/{name}": "x" for name in files}
    assert [path for _, path in changed(start({}), new)] == found


class TestNested:
    """The nearest checkpoint directory above a file."""

    def test_are_separate(self, start: Make) -> None:
        history = start(checkpoint("run") | checkpoint("run/step-1/best"))
        inner = {"run/step-1/best/model.safetensors": "other"}
        assert changed(history, inner) == [("modified", "run/step-1/best")]
        assert changed(history, {"run/step-1/notes.json": "1"}) == [("modified", "run")]

    def test_one_that_comes_into_being_leaves_its_parent_alone(self, start: Make) -> None:
        history = start(checkpoint("run") | {"run/sub/config.json": "{}"})
        assert changed(history, {"run/sub/model.safetensors": "x"}) == [("added", "run/sub")]

    def test_the_root_owns_only_what_lies_in_it(self, start: Make) -> None:
        history = start(checkpoint("") | checkpoint("models/a"))
        assert changed(history, {"docs/schema.json": "{}", "src/app.py": ""}) == []
        assert changed(history, {"config.json": "{ }"}) == [("modified", ".")]
        assert changed(history, {"models/a/config.json": "{ }"}) == [("modified", "models/a")]


class TestGguf:
    """A file, or a numbered series of files, is a model."""

    def test_one_model_is_its_directory(self, start: Make) -> None:
        history = start({"g/model-Q4_K_M.gguf": "one"})
        assert changed(history, {"g/model-Q4_K_M.gguf": "two"}) == [("modified", "g")]
        replaced = {"g/model-Q4_K_M.gguf": None, "g/model-Q5_K_M.gguf": "three"}
        assert changed(history, replaced) == [("modified", "g")]

    def test_several_are_apart_and_a_series_is_one(self, start: Make) -> None:
        series: dict[str, Content] = {f"g/b-0000{n}-of-00003.gguf": str(n) for n in (1, 2, 3)}
        history = start({"g/a.gguf": "a", **series})
        assert changed(history, {"g/a.gguf": "b"}) == [("modified", "g/a.gguf")]
        assert changed(history, {"g/b-00002-of-00003.gguf": "x"}) == [
            ("modified", "g/b-00001-of-00003.gguf")
        ]
        assert changed(history, {"g/config.json": "{}"}) == [
            ("modified", "g/a.gguf"),
            ("modified", "g/b-00001-of-00003.gguf"),
        ]

    def test_a_second_model_leaves_the_first_alone(self, start: Make) -> None:
        history = start({"g/a.gguf": "a"})
        assert changed(history, {"g/b.gguf": "b"}) == [("added", "g/b.gguf")]
        assert changed(history, {"g/a.gguf": None}) == [("removed", "g/a.gguf")]

    def test_one_that_made_room_for_two(self, start: Make) -> None:
        history = start({"g/a.gguf": "a"})
        assert changed(history, {"g/a.gguf": None, "g/b.gguf": "b", "g/c.gguf": "c"}) == [
            ("removed", "g/a.gguf"),
            ("added", "g/b.gguf"),
            ("added", "g/c.gguf"),
        ]

    def test_beside_safetensors(self, start: Make) -> None:
        history = start(checkpoint("m") | {"m/a.gguf": "a"})
        assert changed(history, {"m/a.gguf": "b"}) == [("modified", "m/a.gguf")]
        assert changed(history, {"m/config.json": "{ }"}) == [("modified", "m")]

    def test_a_series_of_hostile_length_is_no_work(self, start: Make) -> None:
        many: dict[str, Content] = {f"g/{n}-00001-of-99999.gguf": "x" for n in range(300)}
        assert len(changed(start({}), many)) == 300


class TestLfs:
    """A pointer is what it points to."""

    def test_another_oid_is_another_checkpoint(self, start: Make) -> None:
        weights = "models/a/model.safetensors"
        history = start(checkpoint("models/a") | {weights: pointer(OID)})
        history.commit({weights: pointer(OTHER)})
        (found,) = between(history).checkpoints
        assert (found.change, found.files, found.pointers) == ("modified", (weights,), 1)

    def test_another_form_of_the_same_oid_is_no_change(self, start: Make) -> None:
        weights = "models/a/model.safetensors"
        history = start(checkpoint("models/a") | {weights: pointer(OID)})
        extended = pointer(OID).replace("oid", f"ext-0-foo sha256:{OTHER}\noid")
        assert changed(history, {weights: extended}) == []
        assert changed(history, {weights: pointer(OID).replace("\n", "\r\n")}) == []

    def test_moved_and_written_anew(self, start: Make) -> None:
        history = start({"a/model.safetensors": pointer(OID)})
        moved = {"a/model.safetensors": None, "b/model.safetensors": pointer(OID) + "\n"}
        history.commit(moved)
        (found,) = between(history).checkpoints
        assert (found.change, found.previous, found.pointers) == ("renamed", "a", 1)

    def test_a_large_file_that_begins_like_one_is_none(self, start: Make) -> None:
        history = start({"a/model.safetensors": pointer(OID) + "x" * 2000})
        history.commit({"a/model.safetensors": pointer(OID) + "y" * 2000})
        (found,) = between(history).checkpoints
        assert (found.change, found.pointers) == ("modified", 0)


class TestLinksAndSubmodules:
    """Neither is followed."""

    def test_a_link_to_a_directory_holds_nothing(self, start: Make) -> None:
        history = start(checkpoint("models/a"))
        assert changed(history, {"latest": Link("models/a")}) == []

    def test_what_a_link_says_is_its_content(self, start: Make) -> None:
        history = start(checkpoint("a") | {"b/model.safetensors": Link("../a/model.safetensors")})
        assert changed(history, {"a/model.safetensors": "other"}) == [("modified", "a")]
        elsewhere = Link("/etc/passwd")
        assert changed(history, {"b/model.safetensors": elsewhere}) == [("modified", "b")]

    def test_a_moved_submodule_is_said(self, start: Make) -> None:
        history = start({"vendor/m.safetensors": Submodule("1" * 40)})
        history.commit({"vendor/m.safetensors": Submodule("2" * 40)})
        detection = between(history)
        assert detection.checkpoints == () and detection.submodules == ("vendor/m.safetensors",)
        assert "Submodules are not looked into: vendor/m.safetensors" in text.render(detection)


def settings(*rules: str, more: str = "") -> str:
    """A settings file with these entries of `checkpoints`."""
    entries = "".join(f"\n  - {{{rule}}}" for rule in rules)
    return f"version: 1\n{f'checkpoints:{entries}' if rules else ''}\n{more}\n"


class TestPins:
    """Checkpoints on the hub."""

    def test_added_changed_and_removed(self, start: Make) -> None:
        def pinned(*names: str) -> dict[str, Content]:
            return {"quant-gate.yaml": settings(*(f"path: {name}" for name in names))}

        history = start({})
        assert changed(history, pinned("org/a@1", "org/b@1")) == [
            ("added", "org/a@1"),
            ("added", "org/b@1"),
        ]
        history.commit(pinned("org/a@2", "org/b@1"))
        (found,) = between(history).checkpoints
        assert (found.change, found.path, found.previous) == ("modified", "org/a@2", "org/a@1")
        assert changed(history, pinned("org/b@1")) == [("removed", "org/a@2")]

    def test_another_reference_is_policy_and_no_checkpoint(self, start: Make) -> None:
        rule = "path: org/a@1, reference: {}"
        history = start({"quant-gate.yaml": settings(rule.format("org/base@1"))})
        history.commit({"quant-gate.yaml": settings(rule.format("org/base@2"))})
        detection = between(history)
        assert detection.checkpoints == ()
        assert detection.policy_files == ("quant-gate.yaml",)
        assert "judges no checkpoint again" in text.render(detection)

    def test_a_directory_of_that_name_is_no_pin(self, start: Make) -> None:
        history = start(checkpoint("models/a@1"))
        assert changed(history, {"quant-gate.yaml": settings("path: models/a@1")}) == []

    def test_a_pin_has_its_own_entry_whatever_the_revision(self) -> None:
        rules = [
            CheckpointRule(path="**", reference="any"),
            CheckpointRule(path="org/a@1", reference="first"),
            CheckpointRule(path="org/a@2", reference="second"),
        ]
        chosen = Settings(checkpoints=tuple(rules))

        def reference(repository: str, revision: str) -> str | None:
            return chosen.rule_for(Path("/cache/x"), Path("/"), (repository, revision)).reference

        assert reference("org/a", "2") == "second"
        assert reference("org/a", "3") == "first"
        assert reference("org/b", "1") == "any"

    def test_everything_holds_the_pins(self, start: Make) -> None:
        history = start(checkpoint("m") | {"quant-gate.yaml": settings("path: org/a@1")})
        found = detect(git.find(history.root), Change("main"), CONTAINERS)
        assert [one.path for one in found.checkpoints] == ["m", "org/a@1"]


class TestFilters:
    """Globs of the command line and of the settings."""

    def test_of_the_command_line(self, start: Make) -> None:
        history = start({})
        history.commit(
            checkpoint("models/a") | checkpoint("tests/b") | {"g/x.gguf": "", "g/y.gguf": ""}
        )
        detection = between(history, paths=["models/**", "g"])
        assert [path for _, path in kinds(detection)] == ["g/x.gguf", "g/y.gguf", "models/a"]
        assert detection.left_out == ("tests/b",)
        assert "Left out by the path filters, 1 changed checkpoint: tests/b" in text.render(
            detection
        )

    def test_of_the_settings(self, start: Make) -> None:
        history = start({"quant-gate.yaml": settings("path: models/*")})
        history.commit(checkpoint("models/a") | checkpoint("models/deep/b"))
        detection = between(history)
        assert kinds(detection) == [("added", "models/a")]
        assert detection.left_out == ("models/deep/b",)

    def test_of_settings_in_a_directory(self, start: Make) -> None:
        history = start({"ci/quant-gate.yaml": settings("path: ../models/*")})
        history.commit(checkpoint("models/a") | checkpoint("other/b"))
        file = history.root / "ci" / "quant-gate.yaml"
        assert kinds(between(history, settings_file=file)) == [("added", "models/a")]

    def test_a_change_cannot_take_itself_out(self, start: Make) -> None:
        history = start({"quant-gate.yaml": settings("path: models/**")})
        narrowed = {"quant-gate.yaml": settings("path: none")}
        assert changed(history, narrowed | checkpoint("models/a")) == [("added", "models/a")]

    def test_a_change_can_widen_what_counts(self, start: Make) -> None:
        history = start({"quant-gate.yaml": settings("path: models/**")})
        wider = {"quant-gate.yaml": settings("path: models/**", "path: new/*")}
        assert changed(history, wider | checkpoint("new/a")) == [("added", "new/a")]

    def test_the_change_that_brings_the_first_settings(self, start: Make) -> None:
        new = {"quant-gate.yaml": settings("path: models/**")}
        assert changed(start({}), new | checkpoint("models/a") | checkpoint("b")) == [
            ("added", "models/a")
        ]

    def test_globs_leave_out_no_pin_but_those_of_the_command_line_do(self, start: Make) -> None:
        history = start({})
        history.commit({"quant-gate.yaml": settings("path: models/*", "path: org/a@1")})
        assert kinds(between(history)) == [("added", "org/a@1")]
        assert between(history, paths=["models/**"]).left_out == ("org/a@1",)

    def test_pins_limit_nothing_else(self, start: Make) -> None:
        history = start({"quant-gate.yaml": settings("path: org/a@1")})
        assert changed(history, checkpoint("m")) == [("added", "m")]

    def test_broken_settings_before_can_be_mended_and_broken_ones_now_are_an_error(
        self, start: Make
    ) -> None:
        history = start({"quant-gate.yaml": "version: nine"})
        mended = {"quant-gate.yaml": settings("path: m")}
        assert changed(history, mended | checkpoint("m")) == [("added", "m")]
        history.commit({"quant-gate.yaml": "version: nine"})
        with pytest.raises(SettingsError, match=r"^quant-gate.yaml at /version"):
            between(history)

    def test_a_change_cannot_take_itself_out_where_the_base_is_not_here(
        self, start: Make, tmp_path: Path
    ) -> None:
        history = start({"quant-gate.yaml": settings("path: models/**")})
        base = history.known("main")
        head = history.commit({"quant-gate.yaml": settings("path: x")} | checkpoint("models/a"))
        assert base is not None
        clone = history.clone(tmp_path / "clone", head)
        with serve(_told(history, base, head)) as address:
            api = Client(address, "token", "octo-org/models")
            found = detect(git.find(clone.root), Change(head, base, "commit"), CONTAINERS, api=api)
        assert (found.source, kinds(found)) == ("API", [("added", "models/a")])

    def test_settings_that_are_a_link_are_not_followed(self, start: Make, tmp_path: Path) -> None:
        history = start({})
        (tmp_path / "secret").write_text("key: value: secret")
        history.commit({"quant-gate.yaml": Link("../secret")} | checkpoint("m"))
        history.check_out("main")
        with pytest.raises(SettingsError, match=r"quant-gate\.yaml is a link"):
            between(history)

    def test_named_settings_that_are_nowhere(self, start: Make) -> None:
        history = start({})
        history.commit(checkpoint("m"))
        with pytest.raises(SettingsError, match=r"other\.yaml cannot be read"):
            between(history, settings_file=history.root / "other.yaml")

    def test_settings_that_no_commit_holds(self, start: Make, tmp_path: Path) -> None:
        history = start({})
        history.commit(checkpoint("m") | checkpoint("n"))
        for directory in (history.root, tmp_path):
            file = directory / "own.yaml"
            file.write_text(settings("path: m"))
            assert kinds(between(history, settings_file=file)) == [("added", "m")]


def test_files_of_the_policy_are_told(start: Make) -> None:
    metrics = (
        "include_path: tasks\nmetrics:\n"
        "  - {task: own/task.yaml, metric: acc}\n  - perplexity: {file: text.txt}\n"
    )
    history = start({"quant-gate.yaml": settings(more=metrics)})
    policy = ("baselines/a.json", "own/code.py", "own/task.yaml", "tasks/x.txt", "text.txt")
    history.commit({**dict.fromkeys(policy, "x"), "baselines.md": "", "owned": ""})
    detection = between(history)
    assert detection.policy_files == policy
    assert detection.checkpoints == ()


class TestHistory:
    """Which two commits are compared, and how they are had."""

    def test_since_the_merge_base(self, start: Make) -> None:
        history = start({})
        fork = history.known("main")
        history.commit(checkpoint("theirs"))
        head = history.commit(checkpoint("mine"), "topic", start=fork)
        detection = between(history, "main", head)
        assert (detection.base, detection.source) == (fork, "git")
        assert kinds(detection) == [("added", "mine")]
        exact = between(history, "main", head, since="commit")
        assert kinds(exact) == [("added", "mine"), ("removed", "theirs")]

    def test_unrelated_histories(self, start: Make) -> None:
        history = start({})
        orphan = History(history.root.parent / "other").commit(checkpoint("a"))
        history.git("fetch", "--quiet", str(history.root.parent / "other"), "main:other")
        with pytest.raises(GitError, match="no common history"):
            between(history, "main", orphan)

    def test_a_shallow_clone_fetches_the_base(self, start: Make, tmp_path: Path) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        repository = git.find(clone.root)
        before = (clone.root / ".git" / "config").read_text()
        detection = detect(
            repository, Change(head, base, "merge base"), CONTAINERS, fetch=repository.fetch
        )
        assert detection.source == "git, base commit fetched"
        assert detection.base == history.git("merge-base", base, head)
        assert kinds(detection) == [("added", "mine")]
        assert (clone.root / ".git" / "config").read_text() == before

    def test_a_shallow_clone_asks_the_api_for_the_merge_base(
        self, start: Make, tmp_path: Path
    ) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        fetched: list[tuple[Sequence[str], int | None]] = []

        def fetch(revisions: Sequence[str], depth: int | None) -> None:
            fetched.append((revisions, depth))
            git.find(clone.root).fetch(revisions, depth)

        with serve(_told(history, base, head)) as address:
            api = Client(address, "token", "octo-org/models")
            change = Change(head, base, "merge base")
            detection = detect(git.find(clone.root), change, CONTAINERS, fetch=fetch, api=api)
        fork = history.git("merge-base", base, head)
        assert fetched == [([fork], 1)]
        assert (detection.base, detection.source) == (fork, "git, base commit fetched")
        assert kinds(detection) == [("added", "mine")]

    def test_a_clone_that_cannot_fetch_asks_the_api(self, start: Make, tmp_path: Path) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        with serve(_told(history, base, head)) as address:
            api = Client(address, "token", "octo-org/models")
            change = Change(head, base, "merge base")
            detection = detect(git.find(clone.root), change, CONTAINERS, api=api)
        assert detection.source == "API"
        assert kinds(detection) == [("added", "mine")]

    def test_what_the_api_leaves_out_is_an_error(self, start: Make, tmp_path: Path) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        state = _told(history, base, head)
        state.trees[head].truncated = True
        with (
            serve(state) as address,
            pytest.raises(GitError, match="holds more files than") as raised,
        ):
            api = Client(address, "token", "octo-org/models")
            detect(git.find(clone.root), Change(head, base, "merge base"), CONTAINERS, api=api)
        assert "fetch-depth: 0" in raised.value.hint

    def test_a_clone_that_lacks_the_commit_and_can_ask_nobody(
        self, start: Make, tmp_path: Path
    ) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        with pytest.raises(GitError, match=f"does not hold commit {base}") as raised:
            between(clone, base, head)
        assert "fetch-depth: 0" in raised.value.hint

    def test_a_merge_base_that_lies_deep_takes_the_whole_history(
        self, start: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        history, base, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        monkeypatch.setattr("gate.commits.DEPTHS", (1, None))
        repository = git.find(clone.root)
        change = Change(head, base, "merge base")
        detection = detect(repository, change, CONTAINERS, fetch=repository.fetch)
        assert kinds(detection) == [("added", "mine")]
        assert not repository.is_shallow

    def test_a_partial_clone_fetches_no_file(self, start: Make, tmp_path: Path) -> None:
        history = start(checkpoint("a") | {"quant-gate.yaml": settings("path: a")})
        history.commit({"a/model.safetensors": "x", "quant-gate.yaml": settings("path: none")})
        history.git("config", "uploadpack.allowFilter", "true")
        clone = tmp_path / "clone"
        address = f"file://{history.root}"
        history.git("clone", "--quiet", "--filter=blob:none", "--no-checkout", address, str(clone))
        history.root.rename(tmp_path / "out of reach")
        found = detect(git.find(clone), Change("main", "main~1", "merge base"), CONTAINERS)
        assert kinds(found) == [("modified", "a")], "unread settings leave nothing out"

    def test_a_branch_that_was_not_fetched(self, start: Make, tmp_path: Path) -> None:
        history, _, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head, depth=None)
        repository = git.find(clone.root)
        change = Change(head, "origin/main", "merge base")
        detection = detect(repository, change, CONTAINERS, fetch=repository.fetch)
        assert kinds(detection) == [("added", "mine")]

    def test_nothing_to_compare(self, start: Make) -> None:
        history = start(checkpoint("a"))
        change = Change("main", None, "nothing")
        assert detect(git.find(history.root), change, CONTAINERS).checkpoints == ()

    def test_what_fails_is_said_without_credentials(self, start: Make) -> None:
        history = start({})
        history.git("remote", "add", "origin", "https://user:secret@127.0.0.1:1/x.git")
        with pytest.raises(GitError) as raised:
            git.find(history.root).fetch(["1" * 40])
        assert "secret" not in raised.value.message + raised.value.hint

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
    def test_a_repository_of_another_user_is_read(self, start: Make) -> None:
        history = start(checkpoint("a"))
        history.commit(checkpoint("b"))
        for path in [history.root, *history.root.rglob("*")]:
            os.chown(path, 4242, 4242, follow_symlinks=False)
        assert kinds(between(history)) == [("added", "b")]

    def test_the_repository_of_a_hook_is_not_taken_for_this_one(
        self, start: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        history = start({})
        history.commit(checkpoint("a"))
        History(tmp_path / "elsewhere")
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere" / ".git"))
        assert kinds(between(history)) == [("added", "a")]

    def test_no_hook_runs(self, start: Make, tmp_path: Path) -> None:
        history, _, head = _forked(start)
        clone = history.clone(tmp_path / "clone", head)
        hook = clone.root / ".git" / "hooks" / "reference-transaction"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        hook.chmod(0o755)
        git.find(clone.root).fetch(["origin/main"], 1)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("revision", ["--output=x", "--since=1", "-h", "nowhere", "1" * 40, ""])
    def test_a_revision_that_is_none(self, start: Make, revision: str) -> None:
        with pytest.raises(GateError):
            between(start({}), revision, "main")


def _forked(start: Make) -> tuple[History, str, str]:
    """A repository whose `main` moved on since `topic` left it; base and head of its request."""
    history = start(checkpoint("theirs"))
    for number in range(3):
        history.commit({"count": str(number)})
    fork = history.known("main")
    base = history.commit({"theirs/config.json": "{ }"})
    history.commit({"topic": "1"}, "topic", start=fork)
    return history, base, history.commit(checkpoint("mine"), "topic")


def _told(history: History, base: str, head: str) -> State:
    """What GitHub knows of the repository."""
    fork = history.git("merge-base", base, head)
    trees = {}
    for commit in (fork, base, head):
        entries = git.find(history.root).tree(commit)
        stored = [Entry(path=e.path, mode=e.mode, type=e.type, sha=e.sha) for e in entries]
        trees[commit] = StoredTree(entries=stored)
    return State(trees=trees, merge_bases={f"{base}...{head}": fork})


class TestMatrix:
    """What `strategy: matrix` is given."""

    def test_names_are_short_safe_and_unique(self) -> None:
        paths = ["models/a", "models-a", "models.a", ".", "x" * 4000, "a\nb", 'a"b', "é", "…"]
        include = matrix(_detection(paths))["include"]
        names = [entry["name"] for entry in include]
        assert [entry["checkpoint"] for entry in include] == paths
        assert len(set(names)) == len(paths)
        assert all(len(name) <= 64 and set(name) <= SAFE for name in names), names

    def test_at_most_256(self) -> None:
        paths = [f"models/{n}" for n in range(257)]
        assert len(matrix(_detection(paths[:256]))["include"]) == 256
        with pytest.raises(SettingsError, match="257 checkpoints changed") as raised:
            matrix(_detection(paths))
        assert "--path" in raised.value.hint


SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _detection(paths: Sequence[str]) -> Detection:
    found = tuple(ChangedCheckpoint(path=path, change="added") for path in paths)
    return Detection(base=None, head="1" * 40, source="git", checkpoints=found)


def gate(
    directory: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`gate detect` in a process of its own, outside of any workflow unless one is given."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    return subprocess.run(
        [sys.executable, "-m", "gate", "detect", *arguments],
        cwd=directory, env=inherited | (environment or {}), capture_output=True, check=False,
    )  # fmt: skip


class TestCommand:
    """`gate detect` as a user and a workflow run it."""

    def test_text_and_json_and_matrix(self, start: Make) -> None:
        history = start(checkpoint("a"))
        history.commit({"a/config.json": "{ }"})
        done = gate(history.root, "--base", "main~1", "--head", "main")
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.decode().splitlines()
        assert first.startswith("1 checkpoint changed from ") and first.endswith("(git)")
        assert second == "  modified  a (1 file)"
        done = gate(history.root, "--base", "main~1", "--head", "main", "--format", "json")
        assert kinds(Detection.model_validate_json(done.stdout)) == [("modified", "a")]
        done = gate(history.root, "--head", "main", "--format", "matrix")
        name = f"a-{sha256(b'a').hexdigest()[:8]}"
        assert json.loads(done.stdout) == {"include": [{"checkpoint": "a", "name": name}]}

    def test_outside_of_a_repository(self, tmp_path: Path) -> None:
        done = gate(tmp_path)
        assert done.returncode == 2 and b"not in a git repository" in done.stderr

    def test_hostile_names_come_through_or_are_refused(self, start: Make) -> None:
        long = "/".join(["d" * 100] * 39)
        lines = "models/a\nb\"c'd`e$(f)|g<!--h-->@i::error::j"
        history = start({})
        history.commit(
            {
                f"{lines}/model.safetensors": "x",
                f"{long}/model.safetensors": "x",
                "ok/\udcff\udcfe.safetensors": "x",
                b"models/\xff\xfe/model.safetensors": "x",
                "e" * 5000 + "/model.safetensors": "x",
            }
        )
        arguments = ("--base", "main~1", "--head", "main")
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0"}
        done = gate(history.root, *arguments, "--format", "json", environment=plain)
        detection = Detection.model_validate_json(done.stdout)
        assert [found.path for found in detection.checkpoints] == [long, lines, "ok"]
        assert detection.checkpoints[2].files == (r"ok/\xff\xfe.safetensors",)
        refused = {failure.checkpoint[:20]: failure.message for failure in detection.failures}
        assert "not UTF-8" in refused.pop(r"models/\xff\xfe")
        assert "5,000 bytes" in refused.pop("e" * 20) and not refused
        assert done.returncode == 3, "two checkpoints would go unjudged"
        done = gate(history.root, *arguments, "--format", "matrix", environment=plain)
        assert [one["checkpoint"] for one in json.loads(done.stdout)["include"]] == [
            long, lines, "ok",
        ]  # fmt: skip
        done = gate(history.root, *arguments, environment=plain)
        assert done.stdout.count(b"\n") == 6

    @pytest.mark.parametrize("kind", ["text", "json", "matrix"])
    def test_no_name_is_a_command_to_the_runner(self, start: Make, kind: str) -> None:
        names = ("::error::x", "a\n::error::x", "##[add-mask]x", "::add-mask::\udcff")
        history = start({f"{name}/model.safetensors": "x" for name in names})
        for arguments in (("--base", "main~1"), ()):
            history.commit({f"{name}/config.json": str(arguments) for name in names})
            done = gate(history.root, "--head", "main", "--format", kind, *arguments)
            lines = done.stdout.decode().splitlines()
            assert not any(line.lstrip().startswith("::") or "##[" in line for line in lines)
            if kind != "text":
                assert "##[add-mask]x" in json.dumps(json.loads(done.stdout))

    def test_a_name_that_leads_out_is_refused(self, start: Make) -> None:
        history = start({})

        class Api:
            def tree(self, sha: str) -> list[git.Entry]:
                paths = ("../up/model.safetensors", "a/.GIT/model.safetensors", "//model.gguf")
                return [git.Entry(path, "100644", "blob", "1" * 40) for path in paths]

            def merge_base(self, base: str, head: str) -> str:
                return base

        found = detect(git.find(history.root), Change("2" * 40), CONTAINERS, api=Api())
        assert found.checkpoints == () and found.source == "API"
        assert {one.checkpoint for one in found.failures} == {"../up", "a/.GIT", "/"}
        assert all("leads out" in one.message for one in found.failures)

    def test_a_pull_request_in_a_shallow_clone_of_its_merge(
        self, start: Make, tmp_path: Path
    ) -> None:
        history, base, head = _forked(start)
        merge = history.commit(checkpoint("mine"), "merge", start=base, merge=[head])
        clone = history.clone(tmp_path / "clone", merge)
        side = {"sha": base, "ref": "main"}, {"sha": head, "ref": "topic"}
        request = {"number": 1, "base": side[0], "head": side[1]}
        environment = _event(tmp_path, "pull_request", {"pull_request": request})
        done = gate(clone.root, "--format", "json", environment=environment)
        assert done.returncode == 0, done.stderr
        detection = Detection.model_validate_json(done.stdout)
        assert kinds(detection) == [("added", "mine")]
        assert (detection.head, detection.source) == (head, "git, base commit fetched")

    def test_a_merge_group_that_touches_nothing(self, start: Make, tmp_path: Path) -> None:
        history = start(checkpoint("a"))
        base = history.known("main")
        head = history.commit({"README.md": "# Other"})
        group = {"merge_group": {"base_sha": base, "head_sha": head}}
        done = gate(history.root, environment=_event(tmp_path, "merge_group", group))
        assert done.returncode == 0
        assert done.stdout.decode().startswith("no checkpoint changed from ")

    def test_the_light_start(self, start: Make, tmp_path: Path) -> None:
        history = start(checkpoint("a"))
        base = history.known("main")
        head = history.commit({"README.md": "# Other"})
        group = {"merge_group": {"base_sha": base, "head_sha": head}}
        heavy = {"torch", "transformers", "requests", "huggingface_hub", "numpy", "jsonschema"}
        code = (
            "import sys, os\nfrom gate.__main__ import main\n"
            "try:\n    main()\nfinally:\n"
            f"    print('loaded:', *sorted({heavy!r} & sys.modules.keys()))\n"
        )
        environment = os.environ | _event(tmp_path, "merge_group", group)
        done = subprocess.run(
            [sys.executable, "-c", code, "detect"],
            cwd=history.root, env=environment | {"GITHUB_TOKEN": "t"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "loaded:", done.stdout + done.stderr


def _event(directory: Path, name: str, payload: dict[str, Any]) -> dict[str, str]:
    """The environment of a workflow."""
    file = directory / "event.json"
    repository = {"full_name": "octo-org/models", "default_branch": "main"}
    file.write_text(json.dumps(payload | {"repository": repository}))
    return {"GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(file)}


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)
SHAS = st.text("0123456789abcdef", min_size=40, max_size=40)


@given(st.lists(st.tuples(st.sampled_from(["100644", "120000", "160000"]), SHAS, NAMES)))
def test_listings_are_read_back(entries: list[tuple[str, str, bytes]]) -> None:
    listing = b"".join(
        f"{mode} blob {sha}\t".encode() + name + b"\0" for mode, sha, name in entries
    )
    read = parse_tree(listing)
    assert [(e.mode, e.sha, os.fsencode(e.path)) for e in read] == entries


@given(st.binary(max_size=300))
def test_junk_is_no_pointer(content: bytes) -> None:
    assert lfs_oid(content) is None
    assert lfs_oid(pointer(OID).encode() + content) == OID
