"""Tokenizers that are stored in different ways are compared by the tokens that they make."""

import dataclasses

import pytest
from results import DIGEST, perplexity, result, task

from gate import baseline
from gate.records import EvalResult, Prompting


def with_tokens(digests: dict[str, str], **changes: object) -> EvalResult:
    """A stored result whose tokenizer makes these tokens of each task's prompts."""
    prompting = Prompting(
        bos=None,
        declares_bos=None,
        puts_bos=False,
        template_bos=None,
        prompts_bos=0,
        turn_end=None,
        ends_turn=None,
        tokens_digests=digests,
    )
    return result(
        task([1.0]), perplexities=[perplexity([1.0, 2.0])], prompting=prompting, **changes
    )


BASE = with_tokens({"ifeval": DIGEST["a"], "gsm8k": DIGEST["b"]})
IN_FILE = with_tokens({"ifeval": DIGEST["a"]}, format="gguf", tokenizer_digest=DIGEST["h"])


def test_a_gguf_file_is_compared_with_the_safetensors_reference() -> None:
    conditions = baseline.Conditions.of(IN_FILE)
    assert baseline.mismatches(BASE, conditions) == ()
    assert baseline.warnings(BASE, conditions) == (
        "one of both is described by a GGUF file's keys, the other by config.json",
        "the tokenizer is stored otherwise than the baseline's; its tokens are the same",
    )


def test_texts_alone_are_compared_by_their_own_tokens() -> None:
    conditions = dataclasses.replace(baseline.Conditions.of(IN_FILE), prompts_digests={}, setups=())
    assert baseline.mismatches(BASE, conditions) == ()
    other = dataclasses.replace(conditions, tokens_digests={"domain.txt": DIGEST["c"]})
    (told,) = baseline.mismatches(BASE, other)
    assert told.startswith("tokens of domain.txt is ")


@pytest.mark.parametrize(
    ("stored", "here"),
    [
        (BASE, {"ifeval": DIGEST["c"]}),
        (with_tokens({"gsm8k": DIGEST["a"]}), {"ifeval": DIGEST["a"]}),
        (result(task([1.0]), perplexities=[perplexity([1.0, 2.0])]), {"ifeval": DIGEST["a"]}),
        (BASE, None),
    ],
    ids=["other tokens", "another task", "an older baseline", "another tokenizer.json"],
)
def test_other_tokens_are_not_compared(stored: EvalResult, here: dict[str, str] | None) -> None:
    conditions = dataclasses.replace(baseline.Conditions.of(IN_FILE), prompts_digests=here)
    (told,) = baseline.mismatches(stored, conditions)
    assert told.startswith("tokenizer is ")
