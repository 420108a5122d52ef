"""How many documents fit together, by arithmetic."""

import pytest

from gate.architecture import Architecture
from gate.backends import hf_memory

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
