"""How many documents fit together, and where the weights of a model go, by arithmetic."""

from pathlib import Path
from typing import Any

import pytest
from checkpoints import build
from tiny_models import opened

from gate.architecture import Architecture
from gate.backends import hf_memory
from gate.errors import BackendUnavailableError

LLAMA_8B = Architecture(
    {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
)
GIB = 2**30


@pytest.mark.parametrize(("free", "fits"), [(0, 1), (GIB, 1), (16 * GIB, 8), (60 * GIB, 32)])
def test_what_fits_is_a_power_of_two_and_one_at_least(free: int, fits: int) -> None:
    assert hf_memory.fitting(LLAMA_8B, 1800, free, all_logits=False) == fits


def test_longer_documents_and_all_logits_take_room() -> None:
    def fitting(tokens: int, *, all_logits: bool = False) -> int:
        return hf_memory.fitting(LLAMA_8B, tokens, 40 * GIB, all_logits=all_logits)

    assert fitting(8000) < fitting(1000)
    assert fitting(1000, all_logits=True) < fitting(1000)
    assert fitting(1) == hf_memory.MOST


def test_an_architecture_that_does_not_tell_takes_as_many_as_a_cpu() -> None:
    found = hf_memory.fitting(Architecture({}), 1000, 40 * GIB, all_logits=False)
    assert found == hf_memory.ON_CPU


LAYERS = 8


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A Llama of eight layers without its weights; its embeddings are a tenth of a layer each."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def layers(model: Any, count: float) -> int:
    """Bytes of so many layers in bfloat16."""
    return int(count * 2 * sum(p.numel() for p in model.model.layers[0].parameters()))


def divided(model: Any, room: dict[int, int], host_bytes: int | None = None) -> dict[str, Any]:
    import torch

    return hf_memory.divided(model, room, torch.bfloat16, host_bytes)


@pytest.mark.model
def test_a_model_is_divided_between_its_layers(tiny: Any) -> None:
    """Of GPUs nothing is asked but their numbers and free bytes."""
    places = divided(tiny, {0: layers(tiny, 6), 3: layers(tiny, 6)})
    assert set(places.values()) == {0, 3}
    held = [places[f"model.layers.{i}"] for i in range(LAYERS)]
    assert held == sorted(held) and 3 <= held.count(0) <= 5, "as full as each other"


@pytest.mark.model
def test_what_gpus_do_not_hold_is_refused_with_its_bytes(tiny: Any) -> None:
    room = {0: layers(tiny, 6), 1: layers(tiny, 0.9)}
    with pytest.raises(BackendUnavailableError, match=r"0\.0 GiB of the model \(.*\) find") as told:
        divided(tiny, room)
    assert "on the GPUs: 0.0 GiB free on GPU 0" in told.value.message
    assert "memory: offload" in told.value.hint


@pytest.mark.model
def test_the_host_takes_the_rest_only_where_it_may(tiny: Any) -> None:
    room = {0: layers(tiny, 6)}
    places = divided(tiny, room, host_bytes=layers(tiny, 9))
    assert set(places.values()) == {0, "cpu"}
    with pytest.raises(BackendUnavailableError, match="the GPUs and the host's memory") as told:
        divided(tiny, room, host_bytes=layers(tiny, 1.5))
    assert "offload" not in told.value.hint


@pytest.mark.model
@pytest.mark.parametrize(
    ("free", "offload", "host"), [(GIB, True, None), (1000, True, True), (1000, False, False)]
)
def test_the_host_is_asked_only_where_the_gpus_are_too_small(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, offload: bool, host: Any
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    checkpoint, form = opened(build(tmp_path / "model", None))
    asked: list[bool] = []

    def divided(model: Any, room: Any, dtype: Any, host_bytes: int | None) -> dict[str, Any]:
        asked.append(host_bytes is not None)
        return {}

    monkeypatch.setattr(hf_memory, "divided", divided)
    placed = hf_memory.placement(
        checkpoint, form, torch.bfloat16, lambda: tiny, lambda needed: {5: free}, offload=offload
    )
    assert asked == ([] if host is None else [host])
    if host is None:
        assert placed == {"device_map": {"": 5}}
