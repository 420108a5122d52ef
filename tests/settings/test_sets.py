"""Named sets: what the package brings under `suites: [NAME]`, held against lm-eval itself."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import jsonschema
import pytest
import yaml

from gate import policy, schema
from gate.cli import cli
from gate.errors import SettingsError
from gate.harness import loading, task_files
from gate.settings import DEFAULT, Settings, TaskRun, located, parse, sets

FILE = PurePath("quant-gate.yaml")


def read(text: str) -> Settings:
    return parse(text.encode(), FILE)


def task_runs() -> Iterator[tuple[str, TaskRun]]:
    for name in sets.NAMES:
        for run in read(f"suites: [{name}]").task_runs:
            yield name, run


def test_every_file_is_a_set_and_every_set_a_file() -> None:
    directory = Path(str(resources.files("gate") / "suites"))
    assert sorted(path.stem for path in directory.glob("*.yaml")) == sorted(sets.NAMES)


@pytest.mark.parametrize("name", sets.NAMES)
def test_a_set_is_settings(name: str) -> None:
    found = read(f"suites: [{name}]")
    assert found.suites
    written = {"suites": sets.load(name)["suites"]}
    jsonschema.validate(written, schema.load("settings"))
    jsonschema.validate({"suites": [name]}, schema.load("settings"))


def test_the_default_has_a_name() -> None:
    assert read("suites: [ifeval]").metrics == DEFAULT.metrics


@pytest.mark.parametrize(("name", "run"), task_runs(), ids=lambda value: getattr(value, "task", ""))
def test_lm_eval_has_every_task_and_metric_of_a_set(name: str, run: TaskRun) -> None:
    import lm_eval.api.metrics
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, metric_registry

    assert lm_eval.api.metrics, "it fills the registry"
    file = loading.task_file(run, Path(), None)
    assert file.is_lm_evals
    assert task_files.dangers(file, set(metric_registry)) == []
    listed = {entry["metric"]: entry for entry in file.config.get("metric_list") or []}
    output_type = file.config.get("output_type", "generate_until")
    known = listed or {metric: {} for metric in DEFAULT_METRIC_REGISTRY[output_type]}
    filters = [entry["name"] for entry in file.config.get("filter_list") or []]
    for metric in run.metrics:
        aggregation: Any = known[str(metric.metric)].get("aggregation", "mean")
        assert aggregation == "mean" or str(metric.metric).startswith("inst_level")
        assert metric.filter is None or metric.filter in filters
    # What lm-eval would ignore, and the harness refuses.
    assert not (file.config.get("num_fewshot") == 0 and run.options.num_fewshot)


def test_sets_stand_among_suites_of_ones_own() -> None:
    own = "{name: own, metrics: [{jsonl: own.jsonl, scorer: exact, min_retention: 0.9}]}"
    found = read(f"suites: [retention, {own}, quick]".replace(", quick", ""))
    assert [suite.name for suite in found.suites] == ["instructions", "maths", "text", "own"]


def test_a_set_whose_mean_decides_stands_alone() -> None:
    found = read("suites: [open-llm]\nmin_mean_retention: 0.98")
    assert (found.combine, str(found.min_mean_retention)) == ("mean", "0.98")
    with pytest.raises(SettingsError, match="set open-llm decides"):
        read("suites: [ifeval, open-llm]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suites: [quik]", "no set of suites named quik"),
        ("suites: [../ifeval]", "no set of suites named"),
        ("suites: [ifeval, retention]", "the name instructions occurs in 2 suites"),
        ("suites: [ifeval, {name: own, metrics: [{task: x, metrik: y}]}]", "/suites/1/metrics/0/m"),
        ("suites: [{name: own, metrics: [{}]}, ifeval]", "/suites/0/metrics/0/task"),
    ],
)
def test_what_is_wrong_is_said_where_it_was_written(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(text)
    assert said in raised.value.message


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "suites"], standalone_mode=False) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in sets.NAMES)
    assert cli.main(["list", "suites", "retention"], standalone_mode=False) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown) == sets.load("retention") and shown.endswith("\n")
    with pytest.raises(SettingsError, match="no set of suites named nothing"):
        cli.main(["list", "suites", "nothing"], standalone_mode=False)


def test_prompts_of_the_package_are_there_wherever_the_settings_lie(tmp_path: Path) -> None:
    found = read("suites: [quick]")
    (run,) = found.task_runs
    packaged = located(tmp_path, str(run.options.documents))
    assert len(packaged.read_text(encoding="utf-8").splitlines()) == 72
    assert not policy.named(found).files
    packaged = located(tmp_path, "package:../../secret.jsonl")
    assert packaged.parent.name == "suites" and packaged.name == "secret.jsonl"


def test_stored_settings_are_those_of_the_sets_that_day() -> None:
    stored = json.loads(read("suites: [quick]").model_dump_json(exclude={"metrics"}))
    assert Settings.model_validate(stored).suites == read("suites: [quick]").suites
