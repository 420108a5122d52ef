"""The harness asks and scores as the `lm_eval` command does, and runs no foreign code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hub_stub
import pytest
import yaml

from gate.errors import (
    BackendUnavailableError,
    NonFiniteLogitsError,
    OutOfMemoryError,
    SettingsError,
)
from gate.harness import Harness, load_tokenizer
from gate.harness.generation import Generation, LanguageModel
from gate.harness.task_files import package
from gate.records import ScoredDocument
from gate.settings import TaskMetric, TaskOptions, TaskRun

pytestmark = pytest.mark.model

PROMPTS, NEW_TOKENS, BATCH = 8, 32, 4

REFERENCE = """
import json, sys
import langdetect
import nltk  # draws a random number when it is imported, on which two documents' scores hang
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

model, task, canned, out = sys.argv[1:]
langdetect.DetectorFactory.seed = 0
answers = json.load(open(canned))
asked = []

class Canned(HFLM):
    def generate_until(self, requests, disable_tqdm=False):
        asked.extend([r.doc_id, *r.args] for r in requests)
        return answers

def evaluate(cls, **options):
    lm = cls(pretrained=model, device="cpu", batch_size=BATCH)
    return lm_eval.simple_evaluate(
        lm, tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
        apply_chat_template=True, **options,
    )

def plain(results):
    (name,) = results["samples"]
    return {"samples": results["samples"][name], "results": results["results"][name]}

found = {"all": plain(evaluate(Canned)), "asked": asked}
found["model"] = plain(evaluate(HFLM, limit=PROMPTS, gen_kwargs={"max_gen_toks": NEW_TOKENS}))
json.dump(found, open(out, "w"), default=str)
"""


class Canned:
    """A model that answers by prompt."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.batch_size_per_gpu = self.max_length = 1
        self.generations: dict[str, list[Generation]] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        for request in requests:
            self.generations.setdefault(request.args[0], []).append(Generation(1, True))
        return [self.answers[request.args[0]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError


def task_run(task: str, metric: str | None = None, **options: Any) -> TaskRun:
    metrics = (TaskMetric(task=task, metric=metric),)
    return TaskRun(task=task, options=TaskOptions(**options), metrics=metrics)


def points(scored: ScoredDocument, metric: str) -> tuple[float, float]:
    return next((p.score, p.weight) for p in scored.points if p.metric == metric)


def write_task(directory: Path, **changes: Any) -> str:
    """A multiple-choice task in a file of its own; returns its path."""
    documents = [
        {"question": "The sky is", "choices": ["blue", "a kind of cheese"], "answer": 0},
        {"question": "Two and two is", "choices": ["five", "four", "nothing"], "answer": 1},
        {"question": "Fire is", "choices": ["cold", "hot"], "answer": 1},
    ]
    (directory / "rows.jsonl").write_text("\n".join(map(json.dumps, documents)))
    task = {
        "task": "sayings",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(directory / "rows.jsonl")},
            "cache_dir": str(directory / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
    }
    path = directory / "sayings.yaml"
    path.write_text(
        yaml.safe_dump(task | changes).replace("'!function ", "!function ").replace("run'", "run")
    )
    return str(path)


@pytest.fixture(scope="module")
def tokenizer(export: Callable[[str], Path]) -> Any:
    return load_tokenizer(export("bf16"))


@pytest.fixture(scope="module")
def tiny(tokenizer: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def ifeval(shared_data: Path, sentence_data: Path, tokenizer: Any) -> Harness:
    documents = str(shared_data / "ifeval" / "input_data.jsonl")
    return Harness([task_run("ifeval", documents=documents)], tokenizer, Path.cwd())


@pytest.fixture(scope="module")
def answers(ifeval: Harness) -> dict[str, str]:
    """Answers that follow some instructions and break others."""
    forms: Sequence[Callable[[str], str]] = (
        lambda text: text[:400],
        lambda text: '"' + text.lower().replace(",", "") + '"',
        lambda text: (
            "<<A TITLE>>\n\n* one\n* two\n* three\n\n" + text.upper() + "\n\nP.S. Done [x]."
        ),
        lambda text: json.dumps({"answer": text}),
        lambda text: "My answer is yes.\n***\n" + "word " * 320,
        lambda text: "",
    )
    prompts = [ifeval.prompt("ifeval", doc_id) for doc_id in ifeval.doc_ids("ifeval")]
    return {prompt: forms[i % len(forms)](prompt[80:]) for i, prompt in enumerate(prompts)}


@pytest.fixture(scope="module")
def reference(
    ifeval: Harness,
    answers: dict[str, str],
    shared_data: Path,
    sentence_data: Path,
    export: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """lm-eval by itself, in a process of its own, over the same file."""
    directory = tmp_path_factory.mktemp("lm_eval")
    files = {"train": str(shared_data / "ifeval" / "input_data.jsonl")}
    task = {
        "include": str(package() / "tasks" / "ifeval" / "ifeval.yaml"),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(directory)},
    }
    (directory / "task.yaml").write_text(yaml.safe_dump(task))
    ordered = [answers[ifeval.prompt("ifeval", i)] for i in ifeval.doc_ids("ifeval")]
    (directory / "canned.json").write_text(json.dumps(ordered))
    arguments = [export("bf16"), *(directory / n for n in ("task.yaml", "canned.json", "out.json"))]
    limits = f"PROMPTS, NEW_TOKENS, BATCH = {PROMPTS}, {NEW_TOKENS}, {BATCH}\n"
    subprocess.run(
        [sys.executable, "-c", limits + REFERENCE, *map(str, arguments)],
        check=True,
        capture_output=True,
        env=os.environ | {"NLTK_DATA": str(sentence_data), "HF_HUB_OFFLINE": "1"},
    )
    found: dict[str, Any] = json.loads((directory / "out.json").read_text())
    return found


def test_requests_are_those_of_lm_eval(ifeval: Harness, reference: dict[str, Any]) -> None:
    generation_kwargs = ifeval.setups()[0].generation_kwargs
    ours = [
        [doc_id, ifeval.prompt("ifeval", doc_id), generation_kwargs]
        for doc_id in ifeval.doc_ids("ifeval")
    ]
    assert len(ours) == 541
    assert ours == reference["asked"]
    assert json.dumps(generation_kwargs) == json.dumps(reference["asked"][0][2])


def test_scores_and_hashes_are_those_of_lm_eval(
    ifeval: Harness, reference: dict[str, Any], answers: dict[str, str]
) -> None:
    from lm_eval.utils import hash_string

    scored = ifeval.score(Canned(answers), "ifeval", ifeval.doc_ids("ifeval"))
    theirs = reference["all"]["samples"]
    for ours, sample in zip(scored, theirs, strict=True):
        assert (ours.doc_id, ours.doc_hash) == (sample["doc_id"], sample["doc_hash"])
        assert ours.prompt_hash == sample["prompt_hash"]
        for metric, _ in ifeval.metrics("ifeval"):
            value = sample[metric]
            value = value if isinstance(value, list) else [value]
            assert points(ours, metric) == (sum(value), len(value)), (ours.doc_id, metric)
        (strict,) = [p for p in ours.points if p.metric == "inst_level_strict_acc"]
        kinds = zip(sample["doc"]["instruction_id_list"], sample[strict.metric], strict=True)
        assert [(part.kind, bool(part.score)) for part in strict.parts] == list(kinds)
    for metric, name in ifeval.metrics("ifeval"):
        score, weight = map(sum, zip(*(points(s, metric) for s in scored), strict=True))
        assert score / weight == pytest.approx(reference["all"]["results"][f"{metric},{name}"])
        assert 0 < score < weight
    hashes = [s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in theirs]
    assert ifeval.setups()[0].task_hash == hash_string("".join(hashes))


def test_the_model_answers_as_under_lm_eval(
    reference: dict[str, Any],
    shared_data: Path,
    sentence_data: Path,
    export: Callable[[str], Path],
    tokenizer: Any,
) -> None:
    from transformers import AutoModelForCausalLM

    documents = str(shared_data / "ifeval" / "input_data.jsonl")
    run = task_run("ifeval", documents=documents, max_gen_toks=NEW_TOKENS)
    harness = Harness([run], tokenizer, Path.cwd())
    model = AutoModelForCausalLM.from_pretrained(export("bf16"), dtype="auto")
    lm: Any = harness.language_model(model, BATCH)

    def position(doc_id: int) -> tuple[int, str]:
        prompt = harness.prompt("ifeval", doc_id)
        return -len(lm.tok_encode(prompt)), prompt

    order = sorted(range(PROMPTS), key=position)
    batches = [order[i : i + BATCH] for i in range(0, PROMPTS, BATCH)]
    scored = {s.doc_id: s for batch in batches for s in harness.score(lm, "ifeval", batch)}
    for sample in reference["model"]["samples"]:
        ours = scored[sample["doc_id"]]
        assert ours.answer is not None
        assert ours.answer.text == sample["resps"][0][0]
        assert 0 < ours.answer.tokens <= NEW_TOKENS
        assert (ours.answer.finish == "length") == (ours.answer.tokens == NEW_TOKENS)
        assert points(ours, "prompt_level_strict_acc")[0] == sample["prompt_level_strict_acc"]


def test_multiple_choice_scores_as_lm_eval(tmp_path: Path, tiny: Any, tokenizer: Any) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    task = write_task(tmp_path)
    harness = Harness([task_run(task)], tokenizer, tmp_path)
    assert not harness.setups()[0].apply_chat_template
    scored = harness.score(harness.language_model(tiny, 3), task, harness.doc_ids(task))
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=tiny, tokenizer=tokenizer, batch_size=3),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )["samples"]["sayings"]
    assert [
        (s.doc_id, s.prompt_hash, points(s, "acc")[0], points(s, "acc_norm")[0]) for s in scored
    ] == [(s["doc_id"], s["prompt_hash"], s["acc"], s["acc_norm"]) for s in theirs]
    assert scored[0].answer is None
    assert scored == harness.score(harness.language_model(tiny, 3), task, harness.doc_ids(task))


def generation_task(directory: Path, until: list[str]) -> str:
    return write_task(
        directory,
        output_type="generate_until",
        doc_to_choice=None,
        doc_to_target="Yes",
        generation_kwargs={"until": until, "max_gen_toks": 5, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )


def test_logits_that_are_no_numbers_end_the_run(tmp_path: Path, tiny: Any, tokenizer: Any) -> None:
    import copy

    import torch

    tasks = [write_task(tmp_path)]
    (tmp_path / "generation").mkdir()
    tasks.append(generation_task(tmp_path / "generation", []))
    harness = Harness([task_run(task) for task in tasks], tokenizer, tmp_path)
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    for task in tasks:
        with pytest.raises(NonFiniteLogitsError):
            harness.score(harness.language_model(broken, 2), task, [0, 1])
    masked = copy.deepcopy(tiny)
    masked.generation_config.suppress_tokens = [5, 6]
    harness.score(harness.language_model(masked, 2), tasks[1], [0, 1])


def test_an_answer_knows_how_it_ended(tmp_path: Path, tiny: Any, tokenizer: Any) -> None:
    task = generation_task(tmp_path, [])
    harness = Harness([task_run(task)], tokenizer, tmp_path)
    (free,) = harness.score(harness.language_model(tiny, 1), task, [0])
    assert free.answer is not None
    assert (free.answer.tokens, free.answer.finish) == (5, "length")
    third = tokenizer.encode(free.answer.text, add_special_tokens=False)
    stop = tokenizer.decode(third[-1:])
    before = free.answer.text.split(stop)[0]
    task = generation_task(tmp_path, [stop])
    harness = Harness([task_run(task)], tokenizer, tmp_path)
    (ended,) = harness.score(harness.language_model(tiny, 1), task, [0])
    assert ended.answer is not None
    assert (ended.answer.text, ended.answer.finish) == (before, "stop")
    assert ended.answer.tokens < 5


def test_memory_that_is_out_is_told_apart(tmp_path: Path, tokenizer: Any) -> None:
    task = write_task(tmp_path)
    harness = Harness([task_run(task)], tokenizer, tmp_path)
    lm: LanguageModel = Canned({})
    with pytest.raises(OutOfMemoryError, match="2 documents"):
        harness.score(lm, task, [0, 1])


def test_changed_documents_are_read_again(tmp_path: Path, tokenizer: Any) -> None:
    task = write_task(tmp_path)
    documents = tmp_path / "own.jsonl"
    seen = []
    for question in ("Snow is", "Soot is"):
        row = {"question": question, "choices": ["white", "black"], "answer": 0}
        documents.write_text(json.dumps(row))
        harness = Harness([task_run(task, documents="own.jsonl")], tokenizer, tmp_path)
        seen.append((harness.prompt(task, 0), harness.setups()[0].documents))
    assert [prompt for prompt, _ in seen] == ["Snow is", "Soot is"]
    assert seen[0][1] != seen[1][1]


@pytest.mark.parametrize("content", ["", "{]", "[1]", '{"question": "a"}\n7'])
def test_documents_must_be_json_lines(tmp_path: Path, tokenizer: Any, content: str) -> None:
    task = write_task(tmp_path)
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(SettingsError, match=r"own\.jsonl"):
        Harness([task_run(task, documents="own.jsonl")], tokenizer, tmp_path)


@pytest.mark.parametrize("key", ["process_results", "process_docs", "class", "doc_to_text"])
def test_a_task_with_code_is_refused_unimported(tmp_path: Path, tokenizer: Any, key: str) -> None:
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    )
    task = write_task(tmp_path, **{key: "!function evil.run"})
    with pytest.raises(SettingsError, match=r"runs evil\.run") as refused:
        Harness([task_run(task)], tokenizer, tmp_path)
    assert "allow_unsafe_tasks" in refused.value.hint
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SettingsError, match="cannot be used"):
        Harness([task_run(task)], tokenizer, tmp_path, allow_unsafe_tasks=["sayings"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unsafe_code": True}, "unsafe_code"),
        ({"process_results": "!function os.path.run"}, r"os\.path\.run"),
        ({"doc_to_text": "!function lm_eval.utils.run"}, r"lm_eval\.utils\.run"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "trust_remote_code"),
        ({"metric_list": [{"metric": "./evil"}]}, "fetches the metric"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "fetches the metric"),
        ({"use_prompt": "evil.yaml:a"}, "use_prompt"),
        ({"include": "../elsewhere.yaml"}, "outside its directory"),
        ({"include": "sayings.yaml"}, "included twice"),
        ({"doc_to_text": "{{ ''.__class__.__mro__ }}"}, "SecurityError"),
    ],
)
def test_other_ways_to_run_code_are_refused(
    tmp_path: Path, tokenizer: Any, changes: dict[str, Any], message: str
) -> None:
    task = write_task(tmp_path, **changes)
    with pytest.raises(SettingsError, match=message):
        Harness([task_run(task)], tokenizer, tmp_path)


def test_lm_evals_own_unsafe_task_is_refused(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match=r"humaneval.*unsafe_code"):
        Harness([task_run("humaneval")], tokenizer, Path.cwd())


def test_an_unknown_task_is_told_with_its_neighbours(tokenizer: Any) -> None:
    with pytest.raises(SettingsError, match="ifevall") as unknown:
        Harness([task_run("ifevall")], tokenizer, Path.cwd())
    assert "ifeval," in unknown.value.hint


def test_a_task_is_found_in_the_include_path(tmp_path: Path, tokenizer: Any) -> None:
    write_task(tmp_path)
    harness = Harness([task_run("sayings")], tokenizer, tmp_path, include_path=".")
    assert harness.setups()[0].n_documents == 3


def test_a_metric_that_is_no_mean_is_refused_by_name(tmp_path: Path, tokenizer: Any) -> None:
    metrics = [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "median", "higher_is_better": True},
    ]
    task = write_task(tmp_path, metric_list=metrics)
    with pytest.raises(SettingsError, match=r"acc_norm .* no mean"):
        Harness([task_run(task, "acc_norm")], tokenizer, tmp_path)
    with pytest.raises(SettingsError, match="no metric bleu"):
        Harness([task_run(task, "bleu")], tokenizer, tmp_path)
    assert Harness([task_run(task)], tokenizer, tmp_path).metrics(task) == (("acc", "none"),)


def test_an_unreachable_data_set_is_told_at_once(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    task = write_task(tmp_path, dataset_path="nobody/nothing", dataset_kwargs=None)
    with pytest.raises(BackendUnavailableError, match="nobody/nothing") as missing:
        Harness([task_run(task)], tokenizer, tmp_path)
    assert "documents:" in missing.value.hint


def test_missing_sentence_data_is_told_before_the_run(
    ifeval: Harness, shared_data: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nltk.data.path", [])
    documents = str(shared_data / "ifeval" / "input_data.jsonl")
    with pytest.raises(BackendUnavailableError, match="punkt_tab") as missing:
        Harness([task_run("ifeval", documents=documents)], tokenizer, Path.cwd())
    assert "python -m nltk.downloader punkt_tab" in missing.value.hint


def test_the_hub_is_asked_for_a_tasks_own_data_set(
    tmp_path: Path, sentence_data: Path, export: Callable[[str], Path]
) -> None:
    rows = [
        {
            "key": number,
            "prompt": f"Name {number} rivers without any commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for number in (2, 3, 4)
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    program = (
        "import sys; from pathlib import Path; from gate.harness import *; "
        "from gate.settings import *; metric = TaskMetric(task='ifeval'); "
        "run = TaskRun(task='ifeval', options=TaskOptions(), metrics=(metric,)); "
        "found = Harness([run], load_tokenizer(Path(sys.argv[1])), Path.cwd()); "
        "print([found.prompt('ifeval', i) for i in found.doc_ids('ifeval')])"
    )
    with hub_stub.serve("google/IFEval", {"ifeval_input_data.jsonl": content}) as endpoint:
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "NLTK_DATA": str(sentence_data)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(export("bf16"))],
            env=os.environ | hub | {"HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert all(row["prompt"] in done.stdout for row in rows)
    assert done.stderr == ""
