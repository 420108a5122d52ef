"""Keys and values rounded as a runtime's cache holds them, through transformers' attention.

Source: https://github.com/vllm-project/vllm (`csrc/cache_kernels.cu`, `layers/attention`), and
https://huggingface.co/docs/transformers/attention_interface
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gate.backends.hf_names import Names
from gate.backends.hf_rounding import InputQuantizer, Rounding
from gate.checkpoint import Checkpoint
from gate.codes import decode_float
from gate.quantization import FLOAT_DTYPES, Format, Scheme

FP8 = Scheme(8, "float", "tensor")

HELD = {"k_scale": "k", "v_scale": "v", "kv_scale": "kv"}
"""The name of a stored scale to what it is of."""

BELOW = (".k_proj", ".v_proj", ".qkv_proj", ".attn")
"""Modules inside an attention module under which exporters store scales."""

OFFSETS = (".k_bias", ".v_bias", ".k_zero_point", ".v_zero_point")
"""Tensors of a cache that is not symmetric."""

ROUNDED = "with_rounded_cache"
"""What is added to the name of an attention function that rounds first."""


@dataclass(frozen=True)
class Cache:
    """How the KV cache is declared, and what is done about it.

    Attributes:
        algo: As declared; None where it is not quantized.
        modules: Attention modules whose keys and values are rounded; 0 where that is not emulated.
    """

    algo: str | None = None
    modules: int = 0


def attach(model: Any, checkpoint: Checkpoint, form: Format, rounding: Rounding) -> Cache:
    """Round keys and values of a loaded model from now on, if the checkpoint declares FP8.

    A module without a stored scale has 1.0, as runtimes take it. Other algorithms, offsets, scales
    for each head and attention that caches something else than keys and values are left as they
    are.

    Args:
        model: Loaded by transformers.
        checkpoint: With the scales.
        form: Its format.
        rounding: Shared state.
    """
    declared = form.declarations(checkpoint)
    algo = next((d.kv_cache_quant_algo for d in declared if d.kv_cache_quant_algo), None)
    attention = {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and type(module).__name__.endswith("Attention")
    }
    offset = any(name.endswith(OFFSETS) for name in checkpoint.tensors)
    if algo is None or algo.upper() != "FP8" or offset or not _suited(model, attention):
        return Cache(algo)
    scales = _scales(model, checkpoint, attention)
    if scales is None:
        return Cache(algo)
    for name, module in attention.items():
        module.rounded_cache = tuple(
            InputQuantizer(FP8, _scalar(scales[name].get(kind, 1.0)), rounding) for kind in "kv"
        )
    _use_rounded_attention(model)
    return Cache(algo, len(attention))


def _suited(model: Any, attention: Mapping[str, Any]) -> bool:
    """Whether keys and values pass through the attention interface as they are cached."""
    latent = any(hasattr(module, "kv_lora_rank") for module in attention.values())
    if not attention or latent or not type(model)._can_set_attn_implementation():
        return False
    config = model.get_decoder().config
    if any(getattr(module, "config", None) is not config for module in attention.values()):
        return False
    eager = config._attn_implementation == "eager" and all(map(_eager, attention.values()))
    return eager or config._attn_implementation == "sdpa"


def _scales(
    model: Any, checkpoint: Checkpoint, attention: Mapping[str, Any]
) -> dict[str, dict[str, float]] | None:
    """Attention module to its stored scales; None where one is no single number."""
    stored: dict[str, dict[str, float]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in HELD:
            continue
        if info.dtype not in FLOAT_DTYPES or info.shape not in {(), (1,)}:
            return None
        for below in BELOW:
            module = module.removesuffix(below)
        value = float(decode_float(checkpoint.read(info), info.dtype, np).reshape(()))
        stored[module] |= dict.fromkeys(HELD[leaf], value)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for parameter, module in _parameters(model, checkpoint, stored):
        owner = next((a for a in attention if parameter.startswith(f"{a}.")), None)
        if owner is not None:
            found[owner] = stored[module]
    return found


def _parameters(
    model: Any, checkpoint: Checkpoint, modules: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """The model's name of a weight inside each of the checkpoint's modules, and the module."""
    names, waiting = Names(model), set(modules)
    for name in checkpoint.tensors:
        module = name.rpartition(".")[0].rpartition(".")[0]
        if module in waiting and name.endswith(".weight"):
            parameter, _ = names.parameter(name)
            if parameter is not None:
                waiting.remove(module)
                yield parameter, module


def _scalar(value: float) -> Any:
    import torch

    return torch.tensor(value, dtype=torch.float32)


def _use_rounded_attention(model: Any) -> None:
    """Have the model's decoder call attention functions that round first."""
    from transformers import AttentionInterface, AttentionMaskInterface

    config = model.get_decoder().config
    name = config._attn_implementation
    AttentionInterface.register(f"{name}_{ROUNDED}", _rounded_sdpa if name == "sdpa" else _rounded)
    masks = AttentionMaskInterface()
    AttentionMaskInterface.register(f"{name}_{ROUNDED}", masks[name])
    config._attn_implementation = f"{name}_{ROUNDED}"


def _rounded_sdpa(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """The function for PyTorch's own attention, on rounded keys and values."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    key, value = _as_cached(module, key, value)
    return sdpa_attention_forward(module, query, key, value, *args, **kwargs)


def _rounded(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """The architecture's own function on rounded keys and values."""
    key, value = _as_cached(module, key, value)
    return _eager(module)(module, query, key, value, *args, **kwargs)


def _as_cached(module: Any, key: Any, value: Any) -> tuple[Any, Any]:
    # Encoders beside the decoder cache nothing.
    quantizers = getattr(module, "rounded_cache", None)
    if quantizers is None:
        return key, value
    of_key, of_value = quantizers
    return of_key(key), of_value(value)


def _eager(module: Any) -> Any:
    return getattr(inspect.getmodule(type(module)), "eager_attention_forward", None)
