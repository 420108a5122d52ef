"""`gate init`: what it writes loads, teaches, and replaces nothing."""

import glob
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import build, write_json
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gate import settings
from gate.cli import cli
from gate.init import HUB_NAME, WORKFLOW, entry, model_card, workflow

FILE = settings.DEFAULT_FILE
Init = Callable[..., Result]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """Runs the command in an empty git repository, which is the current directory."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> Result:
        return CliRunner().invoke(cli, ["init", *options], catch_exceptions=False)

    return run


def loaded() -> settings.Settings:
    return settings.read(Path(FILE))


def test_what_is_written_loads_and_lints(init: Init, tmp_path: Path) -> None:
    build(tmp_path / "models" / "fp8", "FP8")
    build(tmp_path / "models" / "nvfp4", "NVFP4")
    build(tmp_path / "models" / "original", None)
    text = init().output
    own = loaded()
    assert own.metrics[:2] == settings.DEFAULT.metrics[:2]
    assert own.task_metrics[0].min_retention is not None
    assert own.perplexity_metrics == settings.DEFAULT.perplexity_metrics
    assert [(rule.path, rule.reference) for rule in own.checkpoints] == [("**", "models/original")]
    lines = [line for line in text.splitlines() if line[:2] in {"1.", "2.", "3."}]
    assert len(lines) == 3
    assert "gate eval models/original -o baselines/original.json" in lines[0]
    assert lines[1].endswith("gate check models/fp8")
    linted = CliRunner().invoke(cli, ["lint", "models"])
    assert "3 checkpoints" in linted.output and linted.exit_code == 0


def test_the_workflow_is_the_template(init: Init, tmp_path: Path) -> None:
    init()
    text = (tmp_path / WORKFLOW).read_text()
    assert text == workflow()
    jobs: dict[str, Any] = yaml.safe_load(text)["jobs"]
    assert {"detect", "evaluate", "verdict"} <= jobs.keys()


def test_nothing_that_exists_is_replaced_without_force(init: Init, tmp_path: Path) -> None:
    mine = "version: 1 # mine\n"
    (tmp_path / FILE).write_text(mine)
    assert f"Kept {FILE}" in init().output
    assert (tmp_path / FILE).read_text() == mine and (tmp_path / WORKFLOW).is_file()
    (tmp_path / WORKFLOW).write_text("mine")
    with pytest.raises(Exception, match="exist already"):
        init()
    assert (tmp_path / FILE).read_text() == mine
    assert (tmp_path / WORKFLOW).read_text() == "mine"
    init("--force")
    assert (tmp_path / FILE).read_text() != mine
    assert (tmp_path / WORKFLOW).read_text() == workflow()


def test_a_dangling_link_exists_too(init: Init, tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert f"Kept {FILE}" in init().output
    assert not (tmp_path / "elsewhere").exists()


def test_it_writes_to_the_root_of_the_repository(
    init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert f"Wrote ../../{FILE}" in init("--no-github").output
    assert (tmp_path / FILE).is_file() and not (tmp_path / WORKFLOW).exists()


def test_without_a_repository_there_is_no_workflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["init"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with pytest.raises(Exception, match="not in a git repository"):
        CliRunner().invoke(cli, ["init", "--force", "--github"], catch_exceptions=False)


def card(path: Path, front: str) -> None:
    (path / "README.md").write_text(f"---\n{front}\n---\n# A model\n")


def test_each_says_from_what_it_was_made(init: Init, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        build(tmp_path / name, "FP8", layers=1)
    build(tmp_path / "originals" / "one", None, layers=1)
    build(tmp_path / "originals" / "two", None, layers=1)
    card(tmp_path / "a", "base_model: [meta-llama/Llama-3.1-8B-Instruct]")
    config = yaml.safe_load((tmp_path / "b" / "config.json").read_text())
    write_json(tmp_path / "b" / "config.json", config | {"_name_or_path": "../originals/two"})
    write_json(tmp_path / "c" / "config.json", config | {"_name_or_path": "./originals/one"})
    init()
    rules = {rule.path: rule.reference for rule in loaded().checkpoints}
    assert rules == {"a": None, "b": "originals/two", "c": "originals/one", "d": None}
    text = (tmp_path / FILE).read_text()
    assert "# reference: meta-llama/Llama-3.1-8B-Instruct@COMMIT" in text
    assert '- path: "b" # modelopt, 8 bits' in text


@pytest.mark.parametrize(
    "name",
    ["/home/somebody/model", "a/b/c", "x\n  - evil: 1", "../../etc", "a/b@c", 7, None, ["a"], "."],
    ids=repr,
)
def test_a_name_that_is_none_is_not_written(init: Init, tmp_path: Path, name: object) -> None:
    path = build(tmp_path / "m", "FP8", layers=1)
    config = yaml.safe_load((path / "config.json").read_text())
    write_json(path / "config.json", config | {"_name_or_path": name})
    init()
    assert "# reference: org/name@COMMIT, or" in (tmp_path / FILE).read_text()
    assert [rule.reference for rule in loaded().checkpoints] == [None]


@pytest.mark.parametrize("front", ["base_model: [", "- a", "base_model: {a: b}", "&a [*a]", "\t"])
def test_a_brokenmodel_card_tells_nothing(init: Init, tmp_path: Path, front: str) -> None:
    card(build(tmp_path / "m", "FP8", layers=1), front)
    init()
    assert [rule.reference for rule in loaded().checkpoints] == [None]


def test_names_with_anything_in_them_are_covered(init: Init, tmp_path: Path) -> None:
    names = ["a [b]*?", 'it\'s # "that"', "line\nbreak: {", os.fsdecode(b"\xff\xfe"), "\U0001f600"]
    for number, name in enumerate(names):
        path = build(tmp_path / name, "FP8", layers=1)
        card(path, f"base_model: org/model-{number}")
    init()
    own = loaded()
    covered = {own.rule_for(tmp_path / name, tmp_path).path for name in names}
    assert covered == {glob.escape(name) for name in names}


def test_few_bits_want_a_limit_of_their_own(init: Init, tmp_path: Path) -> None:
    path = build(tmp_path / "m", "FP8", layers=1)
    config = yaml.safe_load((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 2, "group_size": 32}
    write_json(path / "config.json", config)
    (path / "hf_quant_config.json").unlink()
    init()
    metric, _ = loaded().perplexity_metrics
    assert str(metric.max_ratio) == "1.5"


def test_a_repository_without_checkpoints_gets_settings_to_fill_in(init: Init) -> None:
    assert "gate check CHECKPOINT" in init().output
    assert [rule.path for rule in loaded().checkpoints] == ["**"]


@given(st.binary(max_size=300))
def test_anymodel_card_is_read(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "card.md"
    path.write_bytes(b"---\n" + junk + b"\n---\n")
    assert isinstance(model_card(path), dict)


@given(st.text(st.characters(exclude_categories=[]), min_size=1, max_size=60))
def test_any_path_is_one_line_that_yaml_reads_back(name: str) -> None:
    assert yaml.safe_load(entry(name, None)) == [{"path": name}]
    assert not HUB_NAME.fullmatch(f"{name}\n")
