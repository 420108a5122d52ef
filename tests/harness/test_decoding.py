"""Own decoding gives what `generate` gives, with fewer rows computed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gate.errors import NonFiniteLogitsError
from gate.harness import decoding, load_tokenizer
from gate.harness.generation import recording

pytestmark = pytest.mark.model

VOCABULARY, LIMIT = 24, 20
PROMPTS = [[5, 7, 11, 3, 9, 4, 8, 2, 6], [9, 2], [4, 13, 6, 20], [17, 3, 8, 1, 12], [21]]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def full_attention() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.4)).eval()


def sliding_attention() -> Any:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    config = MistralConfig(**SIZES, sliding_window=6, initializer_range=0.4)
    return MistralForCausalLM(config).eval()


def padded() -> tuple[Any, Any]:
    import torch

    width = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in PROMPTS])
    return ids, (ids != 0).long()


def generated(model: Any, ends: Sequence[int], limit: int = LIMIT) -> list[list[int]]:
    """What transformers' own loop gives, cut after the first end token."""
    ids, mask = padded()
    rows = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=0,
    )[:, ids.shape[1] :].tolist()
    first = [next((i for i, t in enumerate(row) if t in ends), limit) for row in rows]
    return [row[: end + 1] for row, end in zip(rows, first, strict=True)]


@pytest.fixture(params=[full_attention, sliding_attention])
def model(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_answers_are_those_of_generate_and_finished_rows_leave(model: Any) -> None:
    free = decoding.decode(model, *padded(), LIMIT, (), lambda answer: False)
    assert free == generated(model, [VOCABULARY])
    # Tokens that different rows reach at different places, or not at all.
    ends = {free[0][3], free[1][9]}
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    answers = decoding.decode(model, *padded(), LIMIT, ends, lambda answer: False)
    handle.remove()
    assert answers == generated(model, sorted(ends))
    lengths = [len(answer) for answer in answers]
    assert len(set(lengths)) > 2, "rows end at different places"
    assert rows == [sum(n > step for n in lengths) for step in range(max(lengths))]


def test_a_row_leaves_where_its_text_is_complete(model: Any) -> None:
    free = decoding.decode(model, *padded(), LIMIT, (), lambda answer: False)
    answers = decoding.decode(model, *padded(), LIMIT, (), lambda answer: answer[-1] == free[2][4])
    for answer, whole in zip(answers, free, strict=True):
        end = whole.index(free[2][4]) + 1 if free[2][4] in whole else LIMIT
        assert answer == whole[:end]


def test_logits_that_are_no_numbers_end_it(model: Any) -> None:
    import torch

    with torch.no_grad():
        model.lm_head.weight[3, 0] = torch.nan
    with pytest.raises(NonFiniteLogitsError):
        decoding.decode(model, *padded(), LIMIT, (), lambda answer: False)


@pytest.mark.parametrize(
    ("generation", "plain"),
    [
        ({}, True),
        ({"eos_token_id": [1, 2], "do_sample": False, "temperature": 0.7, "top_k": 20}, True),
        ({"repetition_penalty": 1.0, "num_beams": 1, "bad_words_ids": None}, True),
        ({"do_sample": True}, False),
        ({"repetition_penalty": 1.05}, False),
        ({"num_beams": 4}, False),
        ({"suppress_tokens": [3]}, False),
        ({"a_setting_of_tomorrow": 1}, False),
    ],
)
def test_only_the_likeliest_token_is_plain(generation: dict[str, Any], plain: bool) -> None:
    assert decoding.is_plain(generation) == plain


def test_models_with_a_state_or_inputs_of_their_own_are_left_to_generate() -> None:
    import tiny_models
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    assert not decoding.is_supported(MambaForCausalLM(config))
    assert not decoding.is_supported(tiny_models.vision_language())
    assert decoding.is_supported(full_attention())
    assert decoding.is_supported(sliding_attention())
    assert decoding.is_supported(tiny_models.qwen3_moe())


def test_what_is_not_plain_is_left_to_generate(export: Callable[[str], Path]) -> None:
    """And answers, texts and how they ended are the same where both loops may be used."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(export("bf16"))
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3)).eval()
    lm = recording(HFLM)(model, tokenizer, 4)
    prompts = ["The sky", "Two and two is", "Water", "My neighbour keeps bees and"]

    def answered(stop: list[str], *, decodes: bool) -> tuple[list[str], list[Any]]:
        lm.decodes = decodes
        lm.generations.clear()
        options = {"until": stop, "max_gen_toks": LIMIT, "do_sample": False}
        asked = [SimpleNamespace(args=(prompt, options)) for prompt in prompts]
        texts = lm.generate_until(asked, disable_tqdm=True)
        return texts, [lm.generations[prompt] for prompt in prompts]

    free, _ = answered([], decodes=True)
    stops = [text[len(text) // 2 :][:3] for text in free[:3]]
    texts, ends = answered(stops, decodes=True)
    assert (texts, ends) == answered(stops, decodes=False)
    assert {found[0].ended for found in ends} == {True, False}
    model.generation_config.repetition_penalty = 1.3
    penalized, _ = answered([], decodes=True)
    assert penalized == answered([], decodes=False)[0] != free
