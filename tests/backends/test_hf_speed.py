"""One run against the clock, on a real model."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from tiny_models import VOCABULARY, llama, opened, qwen3_moe, vision_language

from gate.backends import hf_speed
from gate.backends.hf import Hf
from gate.errors import BackendUnavailableError, OutOfMemoryError
from gate.settings import DEFAULT
from gate.speed import Workload

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SPECIAL = ("<s>", "</s>", "<image>")
WORK = Workload(batch=3, prompt_tokens=20, new_tokens=7, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that would rather stop at every token, with a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("speed")
    model = llama(hidden=64, intermediate=128)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, max_new_tokens=2, eos_token_id=list(range(2, VOCABULARY))
    )
    model.save_pretrained(path)
    words = {word: i for i, word in enumerate([*SPECIAL, *map(str, range(VOCABULARY))])}
    own = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    own.add_special_tokens(list(SPECIAL))
    PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Any:
    with Hf(*opened(checkpoint), harness=None, settings=DEFAULT) as backend:
        yield backend


def test_the_clock_is_read_once_for_the_prompts_and_once_a_token(loaded: Hf) -> None:
    ticks = count()
    found = loaded.generate(WORK, lambda: float(next(ticks)))
    assert list(found.times) == [float(tick) for tick in range(1 + WORK.new_tokens)]
    assert (found.peak_of, found.devices) == ("process", 1)
    assert re.fullmatch(r"cpu \(\w+, \d+ threads?\)", found.device)
    assert found.peak_bytes > 2**20


def test_prompts_are_ordinary_tokens_of_the_model_and_follow_from_the_seed(loaded: Hf) -> None:
    first, again, other = (
        hf_speed.random_prompts(VOCABULARY, loaded.tokenizer, WORK._replace(seed=seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (WORK.batch, WORK.prompt_tokens) and first.dtype == np.int64
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    wide = WORK._replace(batch=64, prompt_tokens=64)
    many = hf_speed.random_prompts(VOCABULARY, loaded.tokenizer, wide)
    # The model has fewer embeddings than its tokenizer has words.
    assert set(many.ravel()) == set(range(len(SPECIAL), VOCABULARY))


@pytest.mark.parametrize("make", [qwen3_moe, vision_language])
def test_experts_and_models_that_see_are_timed_on_text(make: Callable[[], Any]) -> None:
    class Words(dict[str, int]):
        added_tokens_decoder: ClassVar = {5: "<image>"}

    words = Words({str(index): index for index in range(VOCABULARY)})
    found = hf_speed.generate(make().eval(), words, WORK, float)
    assert len(found.times) == 1 + WORK.new_tokens


def test_a_model_that_does_not_generate_token_by_token_is_refused(
    loaded: Hf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.model, "generate", lambda *_, streamer, **__: streamer.put(None))
    with pytest.raises(BackendUnavailableError, match="otherwise than token by token"):
        loaded.generate(WORK, float)


def test_memory_that_runs_out_is_our_own_error(loaded: Hf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(loaded.model, "generate", full)
    with pytest.raises(OutOfMemoryError, match="3 sequences together"):
        loaded.generate(WORK, float)


def test_decoded_weights_are_emulated(checkpoint: Path, loaded: Hf) -> None:
    found, _ = opened(checkpoint)
    assert not loaded.emulated
    assert Hf(found, SimpleNamespace(), None, DEFAULT).emulated  # type: ignore[arg-type]
