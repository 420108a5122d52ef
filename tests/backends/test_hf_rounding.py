"""Smoothed inputs, low-rank factors and the KV cache of a loaded model."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import VOCABULARY, export, llama, opened

from gate import activations
from gate.backends import hf_inputs
from gate.backends.hf import Hf
from gate.backends.hf_rounding import InputQuantizer, LowRank, Rounding
from gate.errors import BackendError
from gate.quantization import Scheme
from gate.settings import DEFAULT

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

INT8 = Scheme(8, "int", "tensor")
WINDOWS = (np.arange(96, dtype=np.int64).reshape(3, 32) * 11) % VOCABULARY


def test_a_smoothed_input_is_rounded_after_it_is_multiplied() -> None:
    """Q(x * p) / p; zero where p is; gradients pass; observers see what is rounded."""
    import torch

    x = torch.randn(5, 16, requires_grad=True)
    factors = torch.linspace(0, 3, 16)
    quantizer = InputQuantizer(INT8, torch.tensor(0.01), Rounding(), factors)
    seen: list[Any] = []
    quantizer.observer = seen.append
    found = quantizer(x)
    expected = activations.fake_quantize(x.detach() * factors, INT8, torch.tensor(0.01))
    assert torch.equal(found[:, 0].detach(), torch.zeros(5))
    assert torch.allclose(found[:, 1:].detach(), expected[:, 1:] / factors[1:])
    assert torch.equal(seen[0], x.detach() * factors)
    assert quantizer.largest == pytest.approx(1.27) and quantizer.described == "INT8 static"
    found.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_low_rank_factors_multiply_what_was_not_rounded() -> None:
    """W Q(x p) + B A (x p), by a module whose weight is (W + B A) p."""
    import torch

    x, factors = torch.randn(5, 16), torch.rand(16) + 0.5
    weight, down, up = torch.randn(8, 16), torch.randn(2, 16), torch.randn(8, 2)
    module = torch.nn.Linear(16, 8)
    with torch.inference_mode():
        module.weight.copy_((weight + up @ down) * factors)
        scale = torch.tensor(0.1)
        LowRank(down, up, InputQuantizer(INT8, scale, Rounding(), factors)).attach(module)
        rounded = activations.fake_quantize(x * factors, INT8, scale)
        expected = rounded @ weight.T + (x * factors) @ down.T @ up.T + module.bias
        assert torch.allclose(module(x), expected, atol=1e-4)
        assert not torch.allclose(expected, (x * factors) @ (weight + up @ down).T, atol=1e-2)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP8 with an FP8 KV cache; copy it before changing it."""
    path = tmp_path_factory.mktemp("cached") / "export"
    export(llama(), "FP8_DEFAULT+FP8_KV", path)
    return path


def backend(path: Path, mode: str = "emulate") -> Hf:
    settings = DEFAULT.model_copy(update={"activations": mode})
    return Hf(*opened(path), harness=None, settings=settings)


def test_inputs_that_are_not_emulated_are_refused(cached: Path) -> None:
    """Never left unrounded in silence."""
    checkpoint, form = opened(cached)
    assert form is not None
    scheme = Scheme(8, "int", "token", symmetric=False, dynamic=True)
    layers = [dataclasses.replace(each, input_scheme=scheme) for each in form.layers(checkpoint)]
    with (
        backend(cached, "off") as loaded,
        pytest.raises(BackendError, match="q_proj quantizes its input to asymmetric INT8 by token"),
    ):
        hf_inputs.attach(
            loaded.model, [each for each in layers if "q_proj" in each.name], Rounding()
        )


def test_the_cache_rounds_what_attention_is_given(cached: Path) -> None:
    """With the stored scale of each module; with and without a cache; not where it is off."""
    import torch

    stored = {
        name: float(checkpoint.read(info).reshape(()))
        for checkpoint, _ in (opened(cached),)
        for name, info in checkpoint.tensors.items()
        if name.endswith(("k_scale", "v_scale"))
    }
    assert len(stored) == 4 and len(set(stored.values())) == 4
    with backend(cached, "off") as off, torch.inference_mode():
        unrounded = next(off._forward([WINDOWS])).clone()
        assert "KV" not in off.kernel and "keys" not in off.kernel
    with backend(cached) as loaded, torch.inference_mode():
        for name, module in loaded.model.named_modules():
            for kind, quantizer in zip("kv", getattr(module, "rounded_cache", ()), strict=False):
                assert float(quantizer.input_scale) == stored.pop(
                    f"{name}.{kind}_proj.{kind}_scale"
                )
        assert not stored
        assert loaded.kernel.endswith(
            "inputs rounded to FP8 static; keys and values rounded to FP8"
        )
        at_once = next(loaded._forward([WINDOWS]))
        ids = torch.from_numpy(WINDOWS)
        begun = loaded.model(input_ids=ids[:, :20], use_cache=True)
        rest = loaded.model(input_ids=ids[:, 20:], past_key_values=begun.past_key_values)
        error = (rest.logits - at_once[:, 20:]).float().norm()
        assert error < 0.3 * (at_once - unrounded).float().norm()
        loaded.quantizers.clear()
        assert loaded.rounding_floor(WINDOWS[:1]) is not None, "the cache alone is rounded too"


def declare(path: Path, algo: str) -> None:
    for name, parent, key in (
        ("config.json", "quantization_config", "kv_cache_scheme"),
        ("hf_quant_config.json", "quantization", "kv_cache_quant_algo"),
    ):
        content = json.loads((path / name).read_text())
        content[parent][key] = algo
        (path / name).write_text(json.dumps(content))


def changed(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / "model.safetensors")
        edit(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    return change


ATTENTION = "model.layers.0.self_attn"


def offset(tensors: dict[str, Any]) -> None:
    import torch

    tensors[f"{ATTENTION}.k_proj.k_bias"] = torch.zeros(1, 2, 1, 64)


def by_head(tensors: dict[str, Any]) -> None:
    import torch

    tensors[f"{ATTENTION}.k_proj.k_scale"] = torch.ones(2)


@pytest.mark.parametrize(
    ("change", "algo"),
    [
        (lambda path: declare(path, "NVFP4"), "NVFP4"),
        (lambda path: declare(path, "INT8"), "INT8"),
        (changed(offset), "FP8"),
        (changed(by_head), "FP8"),
    ],
)
def test_a_cache_that_is_not_emulated_is_said(
    change: Callable[[Path], None], algo: str, cached: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(cached, tmp_path / "changed")
    change(path)
    with backend(path) as loaded:
        said = f"; KV cache not quantized, although declared as {algo}"
        assert loaded.kernel.endswith(said)
        assert loaded.model.config._attn_implementation == "sdpa"


def test_a_scale_that_is_not_stored_is_one(cached: Path, tmp_path: Path) -> None:
    """As ModelOpt's cast recipes leave it, and as runtimes take it."""
    path = shutil.copytree(cached, tmp_path / "changed")
    changed(lambda tensors: tensors.pop(f"{ATTENTION}.v_proj.v_scale"))(path)
    with backend(path) as loaded:
        key, value = loaded.model.get_submodule(ATTENTION).rounded_cache
        assert float(value.input_scale) == 1 and float(key.input_scale) != 1
