"""Questions of the user's own: lines of a file become a task, and every answer's scoring ends."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
import results
from hypothesis import given, settings
from hypothesis import strategies as st

from gate import policy, privacy
from gate.cli import cli
from gate.errors import SettingsError
from gate.harness import Harness, own, probe, sources
from gate.harness.generation import Generation
from gate.harness.own import scorers
from gate.records import EvalResult, Report, read
from gate.settings import Settings, parse

OBJECT = {"type": "object", "properties": {"id": {"pattern": "^T-\\d+$"}}, "required": ["id"]}


def metrics(text: str) -> Settings:
    return parse(f"metrics: [{text}]".encode(), PurePath("quant-gate.yaml"))


def write(path: Path, *lines: Any) -> None:
    path.write_text("\n".join(map(json.dumps, lines)))


class Canned:
    """A model that answers by what the prompt holds, and finds the first choice likeliest."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.batch_size_per_gpu = self.max_length = 1
        self.generations: dict[str, list[Generation]] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        for request in requests:
            self.generations.setdefault(request.args[0], []).append(Generation(1, True))
        return [
            next(text for asked, text in self.answers.items() if asked in request.args[0])
            for request in requests
        ]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(-float(request.idx), False) for request in requests]


@pytest.fixture(scope="module")
def tokenizer(export: Callable[[str], Path]) -> Any:
    from gate.harness import load_tokenizer

    return load_tokenizer(export("bf16"))


def test_an_entry_of_the_settings_is_a_task_like_any_other() -> None:
    found = metrics(
        "{jsonl: own/tickets.jsonl, scorer: contains, min_retention: 0.97, think: keep}"
    )
    (metric,) = found.task_metrics
    assert (metric.task, metric.metric) == ("tickets.jsonl", "contains")
    assert (metric.documents, str(metric.min_retention)) == ("own/tickets.jsonl", "0.97")
    assert metric.think == "keep"
    assert Settings.model_validate(found.model_dump(mode="json")).metrics == found.metrics
    assert policy.named(found).files == {"own/tickets.jsonl"}
    (choice,) = metrics("{jsonl: a.jsonl, scorer: choice}").task_metrics
    assert choice.metric == "acc" and not choice.gates


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{jsonl: a.jsonl}", "/metrics/0/scorer: Field required"),
        ("{jsonl: a.jsonl, scorer: fuzzy}", "/metrics/0/scorer"),
        ("{jsonl: a.csv, scorer: exact}", "/metrics/0/jsonl"),
        ("{jsonl: a.jsonl, scorer: exact, metric: acc}", "/metrics/0/metric"),
        ("{task: ifeval, scorer: exact}", "scorer belongs to jsonl"),
    ],
)
def test_an_entry_that_is_wrong_is_refused(entry: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        metrics(entry)
    assert said in raised.value.message


@pytest.mark.model
def test_lines_are_asked_and_scored_by_lm_eval(tmp_path: Path, tokenizer: Any) -> None:
    two, six = {"prompt": "Two?"}, {"prompt": "Six?", "tag": {"x": 1}}
    write(tmp_path / "said.jsonl", two | {"answer": ["2", "two"]}, six | {"answer": "6"})
    write(tmp_path / "ids.jsonl", two | {"answer": OBJECT}, six | {"answer": {"type": "array"}})
    write(
        tmp_path / "chosen.jsonl",
        {"prompt": "Fire is", "choices": ["hot", "cold"], "answer": "hot"},
        {"prompt": "Ice is", "choices": ["hot", "cold", "dry"], "answer": 1},
    )
    found = metrics(
        "{jsonl: said.jsonl, scorer: contains}, {jsonl: ids.jsonl, scorer: json-schema}, "
        "{jsonl: chosen.jsonl, scorer: choice}"
    )
    harness = Harness(found.task_runs, tokenizer, tmp_path)
    lm: Any = Canned({"Two?": '{"id": "T-2"}', "Six?": "It is 7."})
    for setup, scores in zip(harness.setups(), ([1, 0], [1, 0], [1, 0]), strict=True):
        scored = harness.score(lm, setup.task, harness.doc_ids(setup.task))
        assert [document.points[0].score for document in scored] == scores
        assert len({document.doc_hash for document in scored}) == 2
        assert setup.documents is not None
    # As it is asked in use: as a chat; of choices, the likelihood of each is taken as it stands.
    assert "<|im_start|>user\nTwo?" in harness.prompt("said.jsonl", 0)
    assert harness.prompt("chosen.jsonl", 0) == "Fire is"
    own = privacy.own_tasks(found, tmp_path, harness.setups())
    assert own == ("said.jsonl", "ids.jsonl", "chosen.jsonl")


def test_a_bundle_takes_the_users_file_and_nothing_of_the_package(
    tmp_path: Path, sentence_data: Path
) -> None:
    write(tmp_path / "own.jsonl", {"prompt": "x", "answer": "x"})
    (own_run,) = metrics("{jsonl: own.jsonl, scorer: exact}").task_runs
    assert sources(own_run, tmp_path, None, ()).files == (tmp_path / "own.jsonl",)
    packaged = "{task: ifeval, documents: 'package:demo_ifeval.jsonl'}"
    (packaged_run,) = metrics(packaged).task_runs
    assert sources(packaged_run, tmp_path, None, ()).files == ()


def test_prompts_of_the_package_are_shown(tmp_path: Path) -> None:
    found = metrics("{task: ifeval, documents: 'package:demo_ifeval.jsonl'}")
    assert privacy.own_tasks(found, tmp_path, (results.setup(task="ifeval", documents="0"),)) == ()
    own = metrics("{task: ifeval, documents: own.jsonl}")
    assert privacy.own_tasks(own, tmp_path, (results.setup(task="ifeval", documents="0"),))


@pytest.mark.parametrize(
    ("scorer", "answer", "text", "earns"),
    [
        ("exact", ["yes"], " yes\n", 1),
        ("exact", ["yes"], "Yes", 0),
        ("exact", ["no", "yes"], "yes", 1),
        ("contains", ["Paris"], "It is PARIS, of course.", 1),
        ("contains", ["Paris"], "It is Rome.", 0),
        ("regex", [r"T-\d{4}\b"], "See T-1234.", 1),
        ("regex", [r"(?i)^ok$"], "not ok", 0),
        ("regex", ["a"], "\ud800a", 1),
        ("json_schema", [json.dumps(OBJECT)], '{"id": "T-1"}', 1),
        ("json_schema", [json.dumps(OBJECT)], '```json\n{"id": "T-1"}\n```', 1),
        ("json_schema", [json.dumps(OBJECT)], '{"id": "X"}', 0),
        ("json_schema", [json.dumps(OBJECT)], 'Here it is: {"id": "T-1"}', 0),
        ("json_schema", [json.dumps({"type": "number"})], "NaN", 0),
        ("json_schema", [json.dumps({"type": "array"})], "[" * 100_000, 0),
    ],
)
def test_what_an_answer_earns(scorer: str, answer: list[str], text: str, earns: int) -> None:
    (score,) = getattr(scorers, scorer)({"answer": answer}, [text]).values()
    assert score == earns


RUNAWAY = "a" * 60 + "!"
"""On which Python's `re` takes longer than anybody waits."""

DOUBLING = {
    "$ref": "#/$defs/30",
    "$defs": {"0": {"type": "object"}}
    | {str(n): {"allOf": [{"$ref": f"#/$defs/{n - 1}"}] * 2} for n in range(1, 31)},
}


@pytest.mark.parametrize(
    ("scorer", "answer", "text"),
    [
        ("regex", "^(a+)+$", RUNAWAY),
        ("json_schema", json.dumps({"pattern": "^(a+)+$"}), json.dumps(RUNAWAY)),
        ("json_schema", json.dumps({"$ref": "#"}), "{}"),
        ("json_schema", json.dumps(DOUBLING), "{}"),
    ],
)
def test_scoring_ends_whatever_was_answered(scorer: str, answer: str, text: str) -> None:
    (score,) = getattr(scorers, scorer)({"answer": [answer]}, [text]).values()
    assert score == 0


@pytest.mark.parametrize(
    ("scorer", "line", "said"),
    [
        ("exact", {"answer": "x"}, "prompt is missing"),
        ("exact", {"prompt": "x"}, "answer is missing"),
        ("exact", {"prompt": "x", "answer": []}, "answer is an empty list"),
        ("contains", {"prompt": "x", "answer": 4}, "answer is missing or holds no text"),
        ("regex", {"prompt": "x", "answer": "("}, "none of RE2's"),
        ("regex", {"prompt": "x", "answer": "(?=a)"}, "none of RE2's"),
        ("choice", {"prompt": "x", "choices": ["a"], "answer": 0}, "no list of 2"),
        ("choice", {"prompt": "x", "choices": ["a", "a"], "answer": 0}, "two choices are the same"),
        ("choice", {"prompt": "x", "choices": ["a", "b"], "answer": 2}, "none of the choices"),
        ("choice", {"prompt": "x", "choices": ["a", "b"], "answer": True}, "none of the choices"),
        ("json-schema", {"prompt": "x", "answer": "x"}, "no JSON Schema"),
        ("json-schema", {"prompt": "x", "answer": {"type": "x"}}, "its schema is none"),
        ("json-schema", {"prompt": "x", "answer": {"$ref": "http://localhost/x"}}, "not in it"),
        ("json-schema", {"prompt": "x", "answer": {"$ref": "#/$defs/x"}}, "not in it"),
        ("json-schema", {"prompt": "x", "answer": {"pattern": "(?=a)"}}, "none of RE2's"),
        (
            "json-schema",
            {"prompt": "x", "answer": {"patternProperties": {"^(a+)+$": {}}}},
            "not supported",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, scorer: str, line: dict[str, Any], said: str) -> None:
    sound = {"prompt": "x", "answer": "x"}
    good = {"choice": {"choices": ["a", "x"]}, "json-schema": {"answer": {"type": "null"}}}
    write(tmp_path / "own.jsonl", sound | good.get(scorer, {}), line)
    (run,) = metrics(f"{{jsonl: own.jsonl, scorer: {scorer}}}").task_runs
    with pytest.raises(SettingsError) as raised:
        probe(run, tmp_path, None, ())
    assert "own.jsonl, line 2: " in raised.value.message
    assert said in raised.value.message
    assert raised.value.exit_code == 2


KEYS = st.text(max_size=3) | st.sampled_from(
    ["$ref", "$schema", "$id", "type", "pattern", "allOf", "not", "properties", "items", "enum"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    scorer=st.sampled_from(["exact", "contains", "regex", "choice", "json-schema"]),
    line=st.dictionaries(st.sampled_from(["prompt", "answer", "choices"]), JSON),
    text=st.text(max_size=20) | JSON.map(json.dumps),
)
def test_any_line_is_usable_or_refused(scorer: Any, line: dict[str, Any], text: str) -> None:
    with contextlib.suppress(SettingsError):
        (row,) = own.rows(Path("own.jsonl"), [(1, {"prompt": "x"} | line)], scorer).splitlines()
        if scorer != "choice":
            score = getattr(scorers, scorer.replace("-", "_"))(json.loads(row), [text])
            assert set(score) == {scorer} and score[scorer] in {0.0, 1.0}


@pytest.mark.slow
def test_questions_of_ones_own_judge_a_real_export(
    export: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {
        "What is the capital of France? Answer with one word.": "Paris",
        "Which planet is known as the red planet? Answer with one word.": "Mars",
        "What is 2 + 2? Answer with a number.": "4",
        "Which animal barks?": "dog",
        "What do bees make? Answer with one word.": "honey",
        "What is the opposite of hot?": "cold",
    }
    write(
        tmp_path / "facts.jsonl",
        *(
            {"prompt": f"{question} ({n})", "answer": answer}
            for question, answer in asked.items()
            for n in range(4)
        ),
    )
    Path("quant-gate.yaml").write_text(
        "early_stop: off\ncanary_prompts: 4\nmetrics:\n"
        "- {jsonl: facts.jsonl, scorer: contains, min_retention: 0.5, max_gen_toks: 24}\n"
    )
    assert cli.main(["eval", str(export("bf16")), "-o", "base.json"], standalone_mode=False) == 0
    base = read(Path("base.json"), EvalResult)
    arguments = ["check", str(export("fp8")), "--baseline", "base.json", "--report", "json=r.json"]
    assert cli.main(arguments, standalone_mode=False) == 0
    report = read(Path("r.json"), Report)
    (compared,) = report.verdict.comparisons
    assert (compared.task, compared.metric, compared.n) == ("facts.jsonl", "contains", 24)
    assert compared.baseline == base.tasks[0].value >= 0.5
    assert report.private_tasks == ("facts.jsonl",)
