"""quant-gate.yaml: what is read, what is refused, and in which words."""

from decimal import Decimal
from pathlib import Path

import pytest

from gate import settings
from gate.errors import SettingsError
from gate.settings import PerplexityMetric, TaskMetric

EXAMPLE = """\
version: 1
backend: hf
checkpoints:
  - path: quantized_model/**
    reference: meta-llama/Llama-3.1-8B-Instruct@0e9e39f
    baseline: baselines/llama-3.1-8b.json
metrics:
  - task: ifeval
    documents: input_data.jsonl
    metric: inst_level_strict_acc
    min_retention: 0.95
  - task: ifeval
    metric: prompt_level_strict_acc
  - perplexity: {file: domain.txt, window: 512, windows: 56}
    max_ratio: 1.15
ignore:
  tokenizer-missing: "weights only, on purpose"
"""
METRICS = "metrics: [{task: ifeval, metric: acc, min_retention: 0.95}]\n"


def load(tmp_path: Path, text: str, **options: object) -> settings.Settings:
    path = tmp_path / "quant-gate.yaml"
    path.write_text(text)
    return settings.load(path, **options)[0]


def refused(tmp_path: Path, text: str, **options: object) -> str:
    with pytest.raises(SettingsError) as error:
        load(tmp_path, text, **options)
    assert error.value.exit_code == 2
    assert error.value.hint
    return error.value.message


def test_the_example_of_the_documentation(tmp_path: Path):
    read = load(tmp_path, EXAMPLE)
    gating, advisory, text = read.metrics
    assert isinstance(gating, TaskMetric) and isinstance(advisory, TaskMetric)
    assert gating.min_retention == Decimal("0.95")
    assert advisory.min_retention is None
    assert isinstance(text, PerplexityMetric)
    assert (text.max_ratio, text.perplexity.windows) == (Decimal("1.15"), 56)
    assert read.checkpoints[0].reference == "meta-llama/Llama-3.1-8B-Instruct@0e9e39f"
    assert read.ignore == {"tokenizer-missing": "weights only, on purpose"}
    (run,) = read.task_runs
    assert run.task == "ifeval"
    assert run.options.documents == "input_data.jsonl"
    assert [metric.metric for metric in run.metrics] == [
        "inst_level_strict_acc",
        "prompt_level_strict_acc",
    ]


def test_off_is_a_word(tmp_path: Path):
    read = load(tmp_path, f"early_stop: off\nactivations: off\ntrust_remote_code: no\n{METRICS}")
    assert (read.early_stop, read.activations, read.trust_remote_code) == ("off", "off", False)


@pytest.mark.parametrize("limit", ["0.9", "0.95", "0.950", "0.1", "0.12345678901234567890123"])
def test_limits_are_decimals_as_written(tmp_path: Path, limit: str):
    read = load(tmp_path, METRICS.replace("0.95", limit))
    assert str(read.task_metrics[0].min_retention) == limit


@pytest.mark.parametrize("limit", [".nan", ".inf", "0", "-1", "11", "text", "true", "[1]"])
def test_a_limit_that_is_no_share_is_refused(tmp_path: Path, limit: str):
    assert "/metrics/0/min_retention" in refused(tmp_path, METRICS.replace("0.95", limit))


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (METRICS + "bakend: hf\n", "/bakend"),
        ("metrics: [{task: ifeval, metrik: acc}]", "/metrics/0/metrik"),
        ("metrics: [{perplexity: {file: a, windw: 5}}]", "/metrics/0/perplexity/windw"),
        (METRICS + "checkpoints: [{path: a, basline: b}]", "/checkpoints/0/basline"),
        (METRICS + "version: 2", "/version"),
        (METRICS + "batch_size: 0", "/batch_size"),
        ("metrics: []", "/metrics"),
        ("ignore: {scale-zero: }", "/ignore/scale-zero"),
        ("ignore: {scale-zero: ' '}", "/ignore/scale-zero"),
        ("ignore: [scale-zero]", "/ignore"),
        ("metrics: [{task: ifeval, metric: a}, {task: ifeval, num_fewshot: -1}]",
         "/metrics/1/num_fewshot"),
        ("metrics: [{task: ifeval, min_retention: 0.9}]", "min_retention needs a metric"),
        ("metrics: [{perplexity: {file: a, dataset: b}}]", "either file or dataset"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_pointer(tmp_path: Path, text: str, pointer: str):
    assert pointer in refused(tmp_path, text)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "a: &a [*a]", "metrics: 5", "1: 2", "\x00"])
def test_what_is_no_settings_file_is_refused(tmp_path: Path, text: str):
    assert "quant-gate.yaml" in refused(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.load(tmp_path / "absent.yaml")


def test_yaml_constructs_nothing(tmp_path: Path):
    refused(tmp_path, "metrics: !!python/object/apply:os.getcwd []")


def test_two_values_of_one_option_are_refused(tmp_path: Path):
    text = "metrics: [{task: t, metric: a, num_fewshot: 0}, {task: t, metric: b, num_fewshot: 5}]"
    assert "num_fewshot: 0 and 5" in refused_runs(tmp_path, text)


def refused_runs(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as error:
        _ = load(tmp_path, text).task_runs
    return error.value.message


def test_an_option_stated_once_holds_for_the_task(tmp_path: Path):
    text = "metrics: [{task: t, metric: a}, {task: t, metric: b, max_gen_toks: 9}, {task: u}]"
    first, second = load(tmp_path, text).task_runs
    assert (first.options.max_gen_toks, second.options.max_gen_toks) == (9, None)


def test_the_threshold_replaces_gating_limits_alone(tmp_path: Path):
    text = EXAMPLE.replace("metric: prompt_level_strict_acc", "metric: other")
    read = load(tmp_path, text, threshold=Decimal("0.97"))
    assert [m.min_retention for m in read.task_metrics] == [Decimal("0.97"), None]
    assert read.perplexity_metrics[0].max_ratio == Decimal("1.15")


def test_a_threshold_without_effect_is_refused(tmp_path: Path):
    text = "metrics: [{task: ifeval, metric: acc}]"
    assert "no effect" in refused(tmp_path, text, threshold=Decimal("0.97"))


@pytest.mark.parametrize("threshold", ["NaN", "sNaN", "Infinity", "0", "-1", "95"])
def test_a_threshold_that_is_no_share_is_refused(tmp_path: Path, threshold: str):
    assert "--threshold" in refused(tmp_path, METRICS, threshold=Decimal(threshold))


def test_without_a_file_the_default_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    read, root = settings.load(None)
    assert root == tmp_path
    assert [m.metric for m in read.task_metrics if m.min_retention] == ["inst_level_strict_acc"]
    assert len(read.task_metrics) == 4
    text, long = read.perplexity_metrics
    assert text.max_ratio == settings.BY_WEIGHT_BITS
    assert long.advisory and long.perplexity.window == 8192
    (tmp_path / settings.DEFAULT_FILE).write_text(METRICS)
    assert len(settings.load(None)[0].metrics) == 1


@pytest.mark.parametrize(
    ("pattern", "checkpoint", "covered"),
    [
        ("quantized_model/**", "quantized_model", True),
        ("quantized_model/**", "quantized_model/NVFP4", True),
        ("quantized_model/**", "quantized_model/a/b", True),
        ("quantized_model/**", "quantized_model_2", False),
        ("quantized_model/**", "other/quantized_model", False),
        ("./quantized_model/", "quantized_model", True),
        ("models/*", "models/a", True),
        ("models/*", "models/a/b", False),
        ("**/NVFP4", "a/b/NVFP4", True),
        ("**/NVFP4", "NVFP4", True),
        ("models/llama-[0-9]*", "models/llama-3", True),
        ("**", "anything/at/all", True),
    ],
)
def test_globs_cover_checkpoints(tmp_path: Path, pattern: str, checkpoint: str, covered: bool):
    text = METRICS + f'checkpoints: [{{path: "{pattern}", baseline: b.json}}]'
    read = load(tmp_path, text)
    assert (read.rule_for(tmp_path / checkpoint, tmp_path).baseline == "b.json") is covered


def test_an_absolute_glob_covers_an_absolute_path(tmp_path: Path):
    text = METRICS + f'checkpoints: [{{path: "{tmp_path}/m/**", baseline: b.json}}]'
    read = load(tmp_path, text)
    assert read.rule_for(tmp_path / "m" / "x", tmp_path).baseline == "b.json"


def test_the_first_glob_decides(tmp_path: Path):
    entries = "[{path: a/**, baseline: one}, {path: '**', baseline: two}]"
    read = load(tmp_path, METRICS + f"checkpoints: {entries}")
    assert read.rule_for(tmp_path / "a" / "b", tmp_path).baseline == "one"
    assert read.rule_for(tmp_path / "c", tmp_path).baseline == "two"


def test_a_glob_of_many_stars_ends(tmp_path: Path):
    """A pull request writes the settings: no pattern may take exponential time."""
    pattern = "/".join(["**", "a"] * 25)
    read = load(tmp_path, METRICS + f'checkpoints: [{{path: "{pattern}", baseline: b}}]')
    checkpoint = tmp_path.joinpath(*["a"] * 50, "b")
    assert read.rule_for(checkpoint, tmp_path).baseline is None


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target", "merge_group"])
def test_remote_code_is_not_switched_on_by_a_pull_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
):
    text = METRICS + "trust_remote_code: true"
    monkeypatch.setenv("GITHUB_EVENT_NAME", event)
    assert "pull request" in refused(tmp_path, text)
    load(tmp_path, METRICS)
    monkeypatch.setenv("GITHUB_EVENT_NAME", "push")
    assert load(tmp_path, text).trust_remote_code
