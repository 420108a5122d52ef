"""A context read once gives the log-likelihoods that reading it for each choice gives."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gate.harness import load_tokenizer, prefix
from gate.harness.generation import recording

pytestmark = pytest.mark.model

CONTEXT = "The sky over the harbour was the colour of a television tuned to a dead channel. "
CHOICES = [" It rained.", " The sun came out in the end.", " Nothing", " No one slept that night."]


@pytest.fixture(scope="module")
def lm(export: Callable[[str], Path]) -> Any:
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(export("bf16"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    return recording(HFLM)(LlamaForCausalLM(config).eval(), tokenizer, 3)


def asked(lm: Any, requests: list[tuple[str, str]], *, decodes: bool) -> tuple[list[Any], int]:
    """The answers, and how many tokens the model read for them."""
    read = 0

    def count(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal read
        read += (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel()

    lm.decodes = decodes
    handle = lm.model.register_forward_pre_hook(count, with_kwargs=True)
    instances = [SimpleNamespace(args=request) for request in requests]
    answers = lm.loglikelihood(instances, disable_tqdm=True)
    handle.remove()
    return answers, read


@pytest.mark.parametrize(
    "requests",
    [
        [(CONTEXT * n, choice) for n in (3, 1, 2, 5) for choice in CHOICES],
        [(CONTEXT, choice) for choice in CHOICES] + [(CONTEXT * 2, " alone"), ("A", CHOICES[1])],
        [(CONTEXT * 9, choice) for choice in CHOICES],
        [(CONTEXT, letter) for letter in (" A", " B", " C")],
    ],
    ids=["documents", "some alone", "cut to fit", "single tokens"],
)
def test_log_likelihoods_are_those_of_lm_eval(lm: Any, requests: list[tuple[str, str]]) -> None:
    ours, _ = asked(lm, requests, decodes=True)
    theirs, _ = asked(lm, requests, decodes=False)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-5)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_the_likeliest_continuation_is_told(lm: Any) -> None:
    import torch

    ids = torch.tensor([lm.tok_encode(CONTEXT)])
    likeliest = lm.model.generate(input_ids=ids, max_new_tokens=4, do_sample=False)[0].tolist()
    context, continuation = likeliest[:-4], likeliest[-4:]
    other = [*continuation[:-1], continuation[-1] - 1]
    ((first, second),) = prefix.loglikelihoods(lm.model, [context], [[continuation, other]], 2)
    assert first[1] and not second[1]
    assert first[0] > second[0]


def test_a_context_is_read_once(lm: Any) -> None:
    requests = [(CONTEXT * 4, choice) for choice in CHOICES]
    _, ours = asked(lm, requests, decodes=True)
    _, theirs = asked(lm, requests, decodes=False)
    assert ours < theirs / 2
