"""Think blocks, samples that cannot be scored, and how prompts begin: with lm-eval's own tasks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import BackendError
from gate.harness import Harness, load_tokenizer, prompting, thinking
from gate.harness.generation import Generation, LanguageModel
from gate.records import Prompting, ScoredDocument
from gate.settings import TaskMetric, TaskOptions, TaskRun

pytestmark = pytest.mark.model

QUESTIONS = ("The sky is", "Fire is", "Snow is")
SCORER = """
def run(doc, results):
    if results[0] == "dividing":
        1 / 0
    if doc["question"] == "Snow is":
        raise KeyError(doc["question"])
    right = results[0] == "Yes"
    return {"acc": float(right), "err": float(not right), "slips": [not right, False]}

def mean_run(items):
    flat = [part for item in items for part in item]
    return sum(flat) / len(flat)
"""


class Canned:
    """A model that gives each question its answer."""

    def __init__(self, *answers: str) -> None:
        self.answers = dict(zip(QUESTIONS, answers, strict=False))
        self.batch_size_per_gpu = self.max_length = 1000
        self.generations: dict[str, list[Generation]] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        for request in requests:
            self.generations.setdefault(request.args[0], []).append(Generation(3, True))
        return [self.answers[request.args[0]] for request in requests]


@pytest.fixture(scope="module")
def tokenizer(export: Callable[[str], Path]) -> Any:
    return load_tokenizer(export("bf16"))


def built(
    directory: Path, tokenizer: Any, think: Any = None, **changes: Any
) -> tuple[str, Harness]:
    """A generation task in a file of its own, one document a question."""
    (directory / "rows.jsonl").write_text(
        "\n".join(json.dumps({"question": question, "answer": "Yes"}) for question in QUESTIONS)
    )
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    config = {
        "task": "sayings",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(directory / "rows.jsonl")},
            "cache_dir": str(directory / "cache"),
        },
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": [], "max_gen_toks": 7},
        "metric_list": [exact],
    }
    path = directory / "sayings.yaml"
    text = yaml.safe_dump(config | changes)
    path.write_text(text.replace("'!function ", "!function ").replace("run'", "run"))
    options = TaskOptions(think=think, apply_chat_template=False)
    run = TaskRun(task=str(path), options=options, metrics=(TaskMetric(task=str(path)),))
    return str(path), Harness([run], tokenizer, directory, allow_unsafe_tasks=["sayings"])


def points(scored: list[ScoredDocument], metric: str = "exact_match") -> list[float]:
    return [p.score for d in scored for p in d.points if p.metric == metric]


@pytest.mark.parametrize(
    ("think", "reached"), [(None, [1.0, 1.0, 0.0]), ("strip", [1.0, 1.0, 0.0]), ("keep", [0, 1, 0])]
)
def test_a_think_block_is_taken_out_before_scoring(
    tmp_path: Path, tokenizer: Any, think: Any, reached: list[float]
) -> None:
    task, harness = built(tmp_path, tokenizer, think)
    lm: LanguageModel = Canned("<think>\nYes?\n</think>\n\nYes", "Yes", "<think>Yes")
    scored = harness.score(lm, task, [0, 1, 2])
    assert points(scored) == reached
    answers = [document.answer for document in scored if document.answer is not None]
    assert [answer.thinking for answer in answers] == ["closed", None, "unclosed"]
    assert answers[0].text == ("Yes" if think != "keep" else "<think>\nYes?\n</think>\n\nYes")
    assert harness.setups()[0].think == (think or "strip")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<think>Hm.</think>Yes", "document 1 begins with one"),
        ("<think>Hm.", "document 1 ends inside one (max_gen_toks is 7)"),
    ],
)
def test_a_task_that_refuses_thinking_ends_the_run(
    tmp_path: Path, tokenizer: Any, answer: str, said: str
) -> None:
    task, harness = built(tmp_path, tokenizer, "refuse")
    assert points(harness.score(Canned("Yes", "Yes", "No"), task, [0, 1, 2])) == [1.0, 1.0, 0.0]
    with pytest.raises(BackendError) as refused:
        harness.score(Canned("Yes", answer, "No"), task, [0, 1, 2])
    assert said in refused.value.message
    assert "think: strip" in refused.value.hint


METRICS = [
    {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    {"metric": "err", "aggregation": "mean", "higher_is_better": False},
    {"metric": "slips", "aggregation": "!function scorer.mean_run", "higher_is_better": False},
]


def test_a_sample_that_cannot_be_scored_is_lost_and_not_dropped(
    tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / "scorer.py").write_text(SCORER)
    task, harness = built(
        tmp_path, tokenizer, process_results="!function scorer.run", metric_list=METRICS
    )
    scored = harness.score(Canned("Yes", "dividing", ""), task, [0, 1])
    assert [document.lost for document in scored] == [None, "scoring, ZeroDivisionError"]
    assert points(scored, "acc") == [1.0, 0.0]
    assert points(scored, "err") == [0.0, 1.0], "the worst score where less is better"
    slips = [(p.score, p.weight) for d in scored for p in d.points if p.metric == "slips"]
    assert slips == [(0.0, 2.0), (2.0, 2.0)], "and of every part"
    with pytest.raises(BackendError, match="cannot score document 2, whatever is answered"):
        harness.score(Canned("", "", "Yes"), task, [2])


def copied(source: Path, directory: Path, **changes: dict[str, Any]) -> Path:
    """A checkpoint without its weights, with fields of its JSON files changed."""
    directory.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, directory)
    for name, fields in changes.items():
        path = directory / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return directory


def facts(directory: Path) -> Prompting:
    checkpoint = open_checkpoint(directory, CONTAINERS)
    return prompting.facts(load_tokenizer(directory), checkpoint, QUESTIONS)


def test_how_prompts_begin_and_answers_end(export: Callable[[str], Path], tmp_path: Path) -> None:
    sound = facts(export("bf16"))
    assert sound == Prompting(
        bos="<|im_start|>",
        declares_bos=None,
        puts_bos=False,
        template_bos=True,
        prompts_bos=0,
        turn_end="<|im_end|>",
        ends_turn=True,
    )
    other = {"eos_token_id": [0]}
    broken = copied(
        export("bf16"),
        tmp_path / "broken",
        tokenizer_config={"add_bos_token": True, "eos_token": "<|endoftext|>"},
        generation_config=other,
    )
    assert facts(broken) == sound.model_copy(update={"declares_bos": True, "ends_turn": False})
    ended = copied(export("bf16"), tmp_path / "ended", generation_config=other)
    assert facts(ended) == sound, "the tokenizer's own end token ends an answer, too"


def test_the_harness_tells_how_its_tasks_are_asked(
    export: Callable[[str], Path], tmp_path: Path, tokenizer: Any
) -> None:
    _, harness = built(tmp_path, tokenizer)
    found = harness.prompting(open_checkpoint(export("bf16"), CONTAINERS))
    assert len(found.tokens_digests) == 1
    assert found.model_copy(update={"tokens_digests": {}}) == facts(export("bf16"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('tools only') }}",
        "{% for %}",
        "{{ messages[0].content }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_that_shows_no_end_is_no_finding(
    export: Callable[[str], Path], tmp_path: Path, template: str
) -> None:
    directory = copied(export("bf16"), tmp_path / "odd")
    (directory / "chat_template.jinja").write_text(template)
    found = facts(directory)
    assert (found.turn_end, found.ends_turn) == (None, None)


def test_bos_tokens_are_counted_as_lm_eval_gives_them(
    export: Callable[[str], Path], tmp_path: Path
) -> None:
    """A post-processor of tokenizer.json that puts two."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    directory = copied(export("bf16"), tmp_path / "twice")
    inner = Tokenizer.from_file(str(directory / "tokenizer.json"))
    inner.post_processor = TemplateProcessing(
        single="<|im_start|> <|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    inner.save(str(directory / "tokenizer.json"))
    found = facts(directory)
    assert (found.puts_bos, found.prompts_bos) == (True, 2)


def test_markers_that_a_tokenizer_calls_special_survive_its_decoding(
    export: Callable[[str], Path],
) -> None:
    own = load_tokenizer(export("bf16"))
    own.add_special_tokens({"extra_special_tokens": ["[THINK]", "[/THINK]"]})
    tokens = own.encode("<|im_start|>[THINK]Is it?[/THINK]It is.<|im_end|>")
    assert own.decode(tokens, skip_special_tokens=True) == "Is it?It is."
    text = thinking.decoded(own, tokens)
    assert text == "[THINK]Is it?[/THINK]It is."
    assert thinking.split(text, "", thinking.markers(own)) == ("It is.", "closed")
