"""Models of which one decoder layer is in memory at a time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import bf16, build, edit_json, edit_tensors
from tiny_models import opened

from gate.backends import hf_model, hf_shelf
from gate.backends.hf import Hf
from gate.backends.hf_stream import Streamed
from gate.errors import (
    BackendUnavailableError,
    CheckpointError,
    NonFiniteLogitsError,
    OutOfMemoryError,
)
from gate.settings import DEFAULT
from gate.size import part_bytes

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SIZES = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    "dtype": "bfloat16",
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
SHARING = {
    "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 2,
}  # fmt: skip
KINDS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "rescaled positions": ("Llama", {"rope_parameters": LLAMA3}),
    "tied embeddings": ("Qwen2", {"tie_word_embeddings": True}),
    "normed queries and keys": ("Qwen3", {}),
    "softcapped logits, two kinds of attention": ("Gemma2", KINDS),
    "positions by kind of attention": ("Gemma3Text", KINDS),
    "inputs and keys of other layers": ("Gemma4Text", {**KINDS, **SHARING}),
    "scaled logits": ("Granite", {"logits_scaling": 2.0, "embedding_multiplier": 3.0}),
    "fused experts": ("Mixtral", EXPERTS),
    "routed and shared experts": ("Qwen2Moe", {**EXPERTS, "moe_intermediate_size": 32}),
    "embeddings asked for their device": ("Llama4Text", {**EXPERTS, "intermediate_size_mlp": 64}),
}  # fmt: skip


def saved(path: Path, family: str, **changes: Any) -> Path:
    """A random model of a family, as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | changes)
    model_class = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")
    model = model_class(config).to(torch.bfloat16)
    # Some families leave weights to whatever is in memory.
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(path)
    return path


def batches(vocabulary: int = 96) -> list[np.ndarray]:
    """Two of one shape and a longer window."""
    random = np.random.default_rng(0)
    return [random.integers(1, vocabulary, shape) for shape in ((2, 40), (2, 40), (1, 70))]


def streamed(path: Path) -> Streamed:
    import torch

    return Streamed(*opened(path), torch.device("cpu"))


def equal(found: Iterator[Any], expected: Iterator[Any]) -> bool:
    import torch

    return all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def whole(path: Path) -> Iterator[Any]:
    """The logits of the model that transformers loads from the directory."""
    import torch

    model = hf_model.load(*opened(path), reserve=lambda _: {})
    for ids in batches():
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(ids), use_cache=False).logits
        assert logits.isfinite().all()
        yield logits


@pytest.mark.parametrize("what", FAMILIES)
def test_logits_are_those_of_the_whole_model_to_the_last_bit(what: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[what]
    path = saved(tmp_path, family, **changes)
    assert equal(streamed(path).logits(batches()), whole(path))


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("algo", ["FP8", "NVFP4", "MIXED_PRECISION"])
def test_quantized_weights_and_inputs_too(algo: str, experts: int, tmp_path: Path) -> None:
    """In one pass and in a second; the rounding floor as well."""
    path = build(tmp_path, algo, experts=experts, tied=not experts)
    if experts:
        norms = [
            f"model.layers.{i}.self_attn.{which}_norm.weight" for i in (0, 1) for which in "qk"
        ]
        edit_tensors(path, lambda tensors: tensors.update({n: bf16((16,), 1.0) for n in norms}))
        edit_json(path, "config.json", lambda config: config.update(num_experts_per_tok=2))
    found = []
    for streams in (False, True):
        with Hf(*opened(path), None, DEFAULT, streamed=streams) as backend:
            passes = [[t.clone() for t in backend._forward(batches())] for _ in range(2)]
            found.append((passes, backend.kernel, backend.dtype, backend.device))
            found[-1] += (backend.rounding_floor(batches()[2]),)
    (loaded, *facts), (read, *others) = found
    assert equal(iter(read[0] + read[1]), iter(loaded[0] + loaded[1]))
    assert facts == others and "inputs rounded" in facts[0]


def test_one_layer_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """No moment has more weights than the largest part: a layer, the embedding or the head."""
    path = saved(tmp_path, "Mixtral", **EXPERTS)
    model = streamed(path)
    held: list[int] = []

    def look(module: Any, args: Any, found: Any) -> None:
        there = {id(p): p.nbytes for p in model.model.parameters() if not p.is_meta}
        held.append(sum(there.values()))

    for module in model.model.modules():
        if not list(module.children()):
            module.register_forward_hook(look)
    list(model.logits(batches()))
    norm = 2 * SIZES["hidden_size"]
    assert 0 < max(held) <= part_bytes(*opened(path)) + norm
    assert all(parameter.is_meta for parameter in model.model.parameters())


def test_the_process_needs_one_layer_and_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Of four layers of 50 MB, measured as the benchmark does it."""
    path = saved(tmp_path, "Llama", hidden_size=1024, intermediate_size=8192)
    program = Path(__file__).parents[2] / "benchmarks" / "streaming.py"
    shape = ("--windows", "4", "--window", "16")
    command = (sys.executable, program, path, "--measure", "streamed", *shape)
    done = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found["part"] > 50_000_000
    assert found["peak"] <= found["part"] + 10**9


def test_experts_are_stacked_one_after_another(tmp_path: Path, monkeypatch: Any) -> None:
    """All experts of a layer at once would take its memory several times."""
    import torch

    path = saved(tmp_path, "Mixtral", **EXPERTS)
    stacked: list[int] = []
    stack = torch.stack

    def counting(tensors: Any, *args: Any, **options: Any) -> Any:
        stacked.append(len(tensors))
        return stack(tensors, *args, **options)

    model = streamed(path)
    monkeypatch.setattr(torch, "stack", counting)
    list(model.logits(batches()))
    assert set(stacked) == {1}


def test_what_is_left_early_leaves_nothing_behind(tmp_path: Path) -> None:
    model = streamed(build(tmp_path, None))
    found = model.logits(batches())
    next(found)
    assert not all(parameter.is_meta for parameter in model.model.parameters())
    found.close()
    assert all(parameter.is_meta for parameter in model.model.parameters())


def test_many_hidden_states_lie_in_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = build(tmp_path, None)
    expected = list(streamed(path).logits(batches()))
    monkeypatch.setattr(hf_shelf.Shelf.__init__, "__defaults__", (1000,))
    assert equal(streamed(path).logits(batches()), iter(expected))


def test_no_room_for_hidden_states_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    path = build(tmp_path / "checkpoint", None)
    monkeypatch.setattr(hf_shelf.Shelf.__init__, "__defaults__", (1000,))
    monkeypatch.setattr(hf_shelf.tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(BackendUnavailableError, match="hidden states"):
        list(streamed(path).logits(batches()))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("lacks", lambda tensors: tensors.pop("model.norm.weight")),
        ("another shape", lambda tensors: tensors.update({"model.norm.weight": bf16((7,))})),
        ("beyond", lambda tensors: tensors.update({"model.norm.weights": bf16((7,))})),
    ],
)
def test_headers_tell_that_a_weight_is_missing_or_superfluous(
    what: str, change: Any, tmp_path: Path
) -> None:
    path = build(tmp_path, "FP8")
    edit_tensors(path, change)
    with pytest.raises(CheckpointError, match=rf"{what}.*model\.norm\.weight"):
        streamed(path)


def test_layers_that_give_more_than_hidden_states_are_refused(tmp_path: Path) -> None:
    """Bloom's give tuples, which the model takes apart."""
    changes = {"n_layer": 2, "n_head": 4, "head_dim": 16}
    path = saved(tmp_path, "Bloom", **changes)
    with pytest.raises(BackendUnavailableError, match="cannot be streamed layer by layer") as found:
        list(streamed(path).logits(batches()))
    assert "memory" in found.value.hint


def test_a_model_without_a_list_of_layers_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    import transformers

    path = build(tmp_path, None)
    monkeypatch.setattr(transformers.LlamaForCausalLM, "get_decoder", lambda self: self.lm_head)
    with pytest.raises(BackendUnavailableError, match="no list of 2 layers"):
        streamed(path)


def test_weights_that_are_used_beside_their_module_are_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """To torch, what is computed from a tensor without values is no error."""
    import transformers

    path = build(tmp_path, None)
    forward = transformers.models.llama.modeling_llama.LlamaRMSNorm.forward

    def elsewhere(self: Any, hidden: Any) -> Any:
        return forward(self, hidden.to(self.weight.device))

    model = streamed(path)
    model.model.model.norm.forward = elsewhere.__get__(model.model.model.norm)
    assert equal(model.logits(batches()), whole(path)), "loaded before its forward pass"
    before = model.model.model.forward

    def moved(*args: Any, **kwargs: Any) -> Any:
        found = before(*args, **kwargs)
        found.last_hidden_state = found.last_hidden_state.to("meta")
        return found

    monkeypatch.setattr(model.model.model, "forward", moved)
    with pytest.raises(BackendUnavailableError, match="cannot be streamed"):
        list(model.logits(batches()))


def test_a_broken_embedding_is_the_checkpoints_defect(tmp_path: Path) -> None:
    path = build(tmp_path, "FP8")
    nan = ("BF16", (96, 64), b"\xc0\x7f" * 96 * 64)
    edit_tensors(path, lambda tensors: tensors.update({"model.embed_tokens.weight": nan}))
    with (
        Hf(*opened(path), None, DEFAULT, streamed=True) as backend,
        pytest.raises(NonFiniteLogitsError),
    ):
        backend.read(batches()[0])


def test_a_weight_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    path = build(tmp_path, "FP8")
    scale = "model.layers.1.mlp.up_proj.weight_scale"
    edit_tensors(path, lambda tensors: tensors.update({scale: ("F32", (3,), b"\0" * 12)}))
    with pytest.raises(CheckpointError, match=r"up_proj\.weight_scale has the shape"):
        list(streamed(path).logits(batches()))


def test_smaller_batches_are_tried_where_memory_runs_out(tmp_path: Path, monkeypatch: Any) -> None:
    path = build(tmp_path, None)
    with Hf(*opened(path), None, DEFAULT, streamed=True) as backend:
        windows = np.tile(batches()[2], (4, 1))
        expected = backend.read(windows)
        inner = backend.model.model.layers[1].mlp
        forward = inner.forward

        def narrow(hidden: Any) -> Any:
            if len(hidden) > 1:
                raise MemoryError
            return forward(hidden)

        monkeypatch.setattr(inner, "forward", narrow)
        assert np.allclose(backend.read(windows).logprobs, expected.logprobs, atol=0.05)
        monkeypatch.setattr(inner, "forward", lambda hidden: np.empty((2**50,)))
        with pytest.raises(OutOfMemoryError):
            backend.read(windows)


def test_a_configuration_cannot_make_it_skip_layers(tmp_path: Path) -> None:
    """Fewer layers than are stored: the rest is superfluous."""
    path = build(tmp_path, None, layers=3)
    edit_json(path, "config.json", lambda config: config.update(num_hidden_layers=2))
    with pytest.raises(CheckpointError, match="beyond"):
        streamed(path)
