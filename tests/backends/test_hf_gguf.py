"""GGUF files in the reference backend: the model that was converted, or a refusal."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, llama, opened, qwen3_moe

from gate.backends import hf_class, hf_model
from gate.backends.hf_gguf import ARCHITECTURES
from gate.backends.hf_stream import Streamed
from gate.errors import BackendUnavailableError, CheckpointError, GateError

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

IDS = np.arange(60).reshape(2, 30) * 7 % VOCABULARY
Tensors = dict[str, np.ndarray]


def small(model: str, **figures: Any) -> Any:
    """A random model of two layers whose norms are no ones."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{model}Config")(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **figures,
    )
    built = getattr(transformers, f"{model}ForCausalLM")(config)
    for parameter in built.parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(0.5, 0.3)
    return built


def experts() -> Any:
    model = qwen3_moe()
    model.config.norm_topk_prob = True  # as llama.cpp does it for every such file
    return model


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama with scaled frequencies": lambda: small("Llama", head_dim=64, rope_parameters=LLAMA3),
    "qwen2": lambda: small("Qwen2"),
    "qwen3": lambda: small("Qwen3", head_dim=64, tie_word_embeddings=True),
    "qwen3moe": experts,
    "gemma2": lambda: small("Gemma2", head_dim=32, query_pre_attn_scalar=32, sliding_window=8),
}


def with_frequencies(tensors: Tensors) -> None:
    """What the converter writes for Llama 3: a divisor for each frequency."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(head_dim=64, rope_parameters=LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = LLAMA3["rope_theta"] ** (-np.arange(0, 64, 2) / 64)
    tensors["rope_freqs.weight"] = (plain / scaled.numpy()).astype(np.float32)


def test_every_architecture_that_is_evaluated_is_tested() -> None:
    assert {name.partition(" ")[0] for name in MODELS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", MODELS)
def test_computes_what_the_converted_model_does(name: str, tmp_path: Path) -> None:
    """As a whole and streamed, from one file and from a series."""
    import torch

    made = MODELS[name]()
    made.save_pretrained(tmp_path / "original")
    model = type(made).from_pretrained(tmp_path / "original", dtype=torch.bfloat16)
    change = with_frequencies if "frequencies" in name else lambda tensors: None
    file = tmp_path / "file" / "model.gguf"
    gguf_models.convert(model, file, change=change)
    gguf_models.convert(model, tmp_path / "series" / "m.gguf", change=change, tensors_per_file=9)
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS)).logits
        for path in (file.parent, tmp_path / "series"):
            checkpoint, form = opened(path)
            loaded = hf_model.load(checkpoint, form, reserve=lambda _: {})
            assert loaded.dtype == torch.bfloat16
            assert torch.equal(loaded(torch.from_numpy(IDS)).logits, expected)
    (streamed,) = Streamed(checkpoint, form, torch.device("cpu")).logits([IDS])
    assert torch.equal(streamed, expected)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return llama()


def load(model: Any, path: Path, **options: Any) -> Any:
    gguf_models.convert(model, path / "model.gguf", **options)
    checkpoint, form = opened(path)
    return hf_model.load(checkpoint, form, reserve=lambda _: {})


def test_quantized_weights_are_decoded_on_the_way(tiny: Any, tmp_path: Path) -> None:
    import torch

    told: list[tuple[int, int]] = []
    gguf_models.convert(tiny, tmp_path / "model.gguf", "Q8_0")
    checkpoint, form = opened(tmp_path)
    model = hf_model.load(
        checkpoint, form, reserve=lambda _: {}, progress=lambda *done: told.append(done)
    )
    layer = next(layer for layer in form.layers(checkpoint) if layer.name == "blk.1.ffn_down")
    expected = torch.from_numpy(form.dequantize(layer, np)).to(torch.bfloat16)
    assert torch.equal(model.model.layers[1].mlp.down_proj.weight, expected)
    count = len(checkpoint.tensors)
    assert told == [(done, count) for done in range(1, count + 1)]


def test_generation_ends_at_the_file_s_tokens(tiny: Any, tmp_path: Path) -> None:
    model = load(tiny, tmp_path, metadata={"tokenizer.ggml.eot_token_id": 7})
    assert model.generation_config.eos_token_id == [2, 7]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9}')
    assert load(tiny, tmp_path).generation_config.eos_token_id == [2]


def replaced(name: str, *shape: int) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def other_frequencies(tensors: Tensors) -> None:
    tensors["rope_freqs.weight"] = np.linspace(1, 4, 32, dtype=np.float32)


REFUSED: dict[str, tuple[type[GateError], str, dict[str, Any]]] = {
    "a vision projector": (
        BackendUnavailableError,
        "no language model",
        {"metadata": {"general.architecture": "clip"}},
    ),
    "an adapter": (
        BackendUnavailableError,
        "no language model: its type is 'adapter'",
        {"metadata": {"general.type": "adapter"}},
    ),
    "an architecture that is not proven": (
        BackendUnavailableError,
        "architecture 'mamba'",
        {"metadata": {"general.architecture": "mamba"}},
    ),
    "scaled positions": (
        BackendUnavailableError,
        r"does not read its key llama\.rope\.scaling\.type, which is 'yarn'",
        {"metadata": {"llama.rope.scaling.type": "yarn"}},
    ),
    "experts of Mixtral": (
        BackendUnavailableError,
        r"llama\.expert_count",
        {"metadata": {"llama.expert_count": 8}},
    ),
    "part of each head rotated": (
        BackendUnavailableError,
        r"llama\.rope\.dimension_count, which is 32",
        {"metadata": {"llama.rope.dimension_count": 32}},
    ),
    "another model's soft caps": (
        BackendUnavailableError,
        r"llama\.attn_logit_softcapping, which is 50\.0",
        {"metadata": {"llama.attn_logit_softcapping": 50.0}},
    ),
    "no epsilon": (
        CheckpointError,
        r"has no llama\.attention\.layer_norm_rms_epsilon",
        {"metadata": {"llama.attention.layer_norm_rms_epsilon": None}},
    ),
    "frequencies scaled in another way": (
        BackendUnavailableError,
        "rope_freqs",
        {"change": other_frequencies},
    ),
    "a tensor that the model has not": (
        BackendUnavailableError,
        r"does not read its tensor blk\.0\.attn_q\.bias",
        {"change": replaced("blk.0.attn_q.bias", 256)},
    ),
    "a scale of an unquantized weight": (
        BackendUnavailableError,
        r"does not read its tensor blk\.0\.attn_q\.scale",
        {"change": replaced("blk.0.attn_q.scale", 1)},
    ),
    "a weight too few": (
        CheckpointError,
        r"lacks: model\.layers\.1\.mlp\.up_proj\.weight",
        {"change": without("blk.1.ffn_up.weight")},
    ),
    "a weight of another shape": (
        CheckpointError,
        r"blk\.1\.ffn_up\.weight makes a weight of shape \(3, 256\)",
        {"change": replaced("blk.1.ffn_up.weight", 3, 256)},
    ),
    "a figure that is no number": (
        CheckpointError,
        "states two blocks",
        {"metadata": {"llama.block_count": "two"}},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_would_be_another_model(case: str, tiny: Any, tmp_path: Path) -> None:
    error, message, options = REFUSED[case]
    with pytest.raises(error, match=message):
        load(tiny, tmp_path, **options)


KEYS = (
    "general.architecture", "general.type", "llama.block_count", "llama.embedding_length",
    "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length",
    "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.rope.scaling.type",
    "llama.vocab_size", "llama.context_length", "llama.anything",
)  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.text(max_size=9),
    st.lists(st.integers(-1, 2**32), max_size=3),
)


@pytest.fixture(scope="module")
def scaled(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("scaled") / "model.gguf"
    gguf_models.convert(tiny, path, change=other_frequencies)
    return opened(path.parent)[0]


@settings(max_examples=100, deadline=None)
@given(
    changed=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1), frequencies=st.booleans()
)
def test_any_keys_make_a_configuration_or_a_refusal(
    scaled: Any, changed: dict[str, Any], frequencies: bool
) -> None:
    tensors = dict(scaled.tensors)
    if not frequencies:
        del tensors["rope_freqs.weight"]
    checkpoint = replace(scaled, metadata={**scaled.metadata, **changed}, tensors=tensors)
    with contextlib.suppress(GateError):
        config = hf_class.config(checkpoint, trust_remote_code=False)
        assert config.vocab_size == VOCABULARY


def test_refuses_experts_of_which_half_is_stored(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"1 of the 2 tensors that .*gate_up_proj"):
        load(qwen3_moe(), tmp_path, change=without("blk.1.ffn_up_exps.weight"))
