"""GGUF files of transformers models, as llama.cpp's converter makes them, in any type.

The converter is no package: what it changes is written down here, from its source.
Source: https://github.com/ggml-org/llama.cpp (`convert_hf_to_gguf.py`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Kind = gguf.GGMLQuantizationType
Choose = Callable[[str], str]
"""From the name of a matrix to its type."""

ARCHITECTURES = {"qwen3_moe": "qwen3moe"}
"""transformers' model types that GGUF calls otherwise."""


def convert(
    model: Any,
    path: Path,
    kind: "str | Choose" = "F32",
    *,
    tokenizer: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    change: Callable[[dict[str, np.ndarray]], object] = lambda tensors: None,
    tensors_per_file: int = 0,
) -> Path:
    """Write a loaded model.

    Args:
        model: Of transformers; its weights become float32.
        path: The file; its directory is made.
        kind: Type of the matrices, or what says it for each; norms and the like stay F32.
        tokenizer: Keys below `tokenizer`; see `keys_of`. Left out, a vocabulary without sense.
        metadata: Further keys, whole; None takes one out.
        change: Changes what is stored.
        tensors_per_file: Splits the model; 0 for one file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    config = model.config
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    keys = _figures(config, architecture) | _tokenizer(tokenizer, config.vocab_size)
    keys |= dict(metadata or {})
    tensors = dict(_tensors(model, architecture))
    change(tensors)
    writer = gguf.GGUFWriter(
        path, architecture, split_max_tensors=tensors_per_file, use_temp_file=False
    )
    for key, value in keys.items():
        if value is not None:
            _add(writer, key, value)
    for name, values in tensors.items():
        stored = (kind if isinstance(kind, str) else kind(name)) if values.ndim > 1 else "F32"
        if values.shape[-1] % gguf.GGML_QUANT_SIZES[Kind[stored]][0]:
            stored = "F16"
        writer.add_tensor(name, gguf.quants.quantize(values, Kind[stored]), raw_dtype=Kind[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def keys_of(directory: Path) -> dict[str, Any]:
    """What the converter writes of a byte-level tokenizer.json and its template."""
    described = json.loads((directory / "tokenizer.json").read_text())
    config = json.loads((directory / "tokenizer_config.json").read_text())
    special = {token["id"]: token for token in described["added_tokens"]}
    ids = dict(described["model"]["vocab"])
    ids |= {token["content"]: index for index, token in special.items()}
    tokens = [token for token, _ in sorted(ids.items(), key=lambda item: item[1])]
    template = directory / "chat_template.jinja"
    return {
        "ggml.model": "gpt2",
        "ggml.pre": "smollm",
        "ggml.tokens": tokens,
        "ggml.token_type": [3 if index in special else 1 for index in range(len(tokens))],
        "ggml.merges": [" ".join(merge) for merge in described["model"]["merges"]],
        "ggml.bos_token_id": ids[config["bos_token"]],
        "ggml.eos_token_id": ids[config["eos_token"]],
        "ggml.add_bos_token": False,
        "chat_template": template.read_text(),
    }


def _figures(config: Any, architecture: str) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    if config.model_type == "qwen3_moe":
        found |= {
            "expert_count": config.num_experts,
            "expert_used_count": config.num_experts_per_tok,
            "expert_feed_forward_length": config.moe_intermediate_size,
        }
    if config.model_type == "gemma2":
        found |= {
            "attention.sliding_window": config.sliding_window,
            "attn_logit_softcapping": config.attn_logit_softcapping,
            "final_logit_softcapping": config.final_logit_softcapping,
        }
    return {"general.type": "model"} | {f"{architecture}.{k}": v for k, v in found.items()}


def _tokenizer(keys: Mapping[str, Any] | None, vocabulary: int) -> dict[str, Any]:
    plain = {
        "ggml.model": "gpt2",
        "ggml.pre": "default",
        "ggml.tokens": [*(chr(0x100 + index) for index in range(vocabulary - 1)), "\u0100\u0101"],
        "ggml.token_type": [1] * vocabulary,
        "ggml.merges": ["\u0100 \u0101"],
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
    }
    return {f"tokenizer.{key}": value for key, value in (keys or plain).items()}


def _tensors(model: Any, architecture: str) -> "dict[str, np.ndarray]":
    config = model.config
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("mlp.experts.gate_up_proj"):
            base = name.removesuffix("gate_up_proj")
            halves = np.split(values, 2, axis=1)
            for part, half in zip(("gate_proj", "up_proj"), halves, strict=True):
                found[f"{names.get_name(base + part)}.weight"] = np.ascontiguousarray(half)
            continue
        base, _, suffix = name.rpartition(".")
        if suffix not in {"weight", "bias"}:
            base, suffix = name, "weight"
        stored = names.get_name(base)
        assert stored is not None, name
        if architecture == "llama" and base.endswith(("q_proj", "k_proj")):
            query = base.endswith("q_proj")
            heads = config.num_attention_heads if query else config.num_key_value_heads
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if architecture == "gemma2" and base.endswith("norm"):
            values = values + 1
        found[f"{stored}.{suffix}"] = np.ascontiguousarray(values)
    return found


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
