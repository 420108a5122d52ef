"""Tiny checkpoints, sound and hostile, made of real safetensors files.

A tensor is `(dtype, shape, bytes)`, so that what no library would write can be written.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensor = tuple[str, tuple[int, ...], bytes]
HIDDEN, INTERMEDIATE, KV, VOCAB = 64, 128, 32, 96

FP8_ARGUMENTS = {"dynamic": False, "num_bits": 8, "type": "float"}
NVFP4_ARGUMENTS = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}


def build(
    path: Path,
    algo: str | None = "FP8",
    *,
    layers: int = 2,
    shards: int = 1,
    tied: bool = True,
    experts: int = 0,
    exclude: tuple[str, ...] = ("lm_head", "model.embed_tokens"),
) -> Path:
    """Write a sound checkpoint of a tiny random Llama (or Qwen3-MoE, with experts).

    Args:
        path: The directory, made here.
        algo: ModelOpt's `quant_algo` (MIXED_PRECISION: FP8 attention, NVFP4 MLP); None for BF16.
        layers: Decoder layers.
        shards: Weight files; with more than one there is an index.
        tied: Whether the head is the embedding.
        experts: Experts a layer; 0 for a dense MLP.
        exclude: `exclude_modules`.
    """
    path.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {"model.embed_tokens.weight": bf16((VOCAB, HIDDEN))}
    algos: dict[str, str] = {}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = bf16((HIDDEN,))
        if experts:
            tensors[f"{prefix}.mlp.gate.weight"] = bf16((experts, HIDDEN))
        for module, shape in _linears(prefix, experts):
            part = "NVFP4" if ".mlp." in module else "FP8"
            own = part if algo == "MIXED_PRECISION" else algo
            if own:
                algos[module] = own
            tensors |= linear(module, own, shape)
    tensors["model.norm.weight"] = bf16((HIDDEN,))
    if not tied:
        tensors["lm_head.weight"] = bf16((VOCAB, HIDDEN))
    write_shards(path, tensors, shards)
    config = _config(layers, tied, experts)
    if algo:
        declared = declaration(algo, exclude, algos)
        write_json(path / "hf_quant_config.json", nested(declared))
        config["quantization_config"] = flat(declared)
    write_json(path / "config.json", config)
    write_json(path / "tokenizer.json", {"version": "1.0"})
    write_json(path / "generation_config.json", {"eos_token_id": 2})
    return path


def _linears(prefix: str, experts: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every linear layer's name and (out_features, in_features)."""
    for name, rows in (("q", HIDDEN), ("k", KV), ("v", KV), ("o", HIDDEN)):
        yield f"{prefix}.self_attn.{name}_proj", (rows, HIDDEN)
    parents = [f"{prefix}.mlp.experts.{expert}" for expert in range(experts)]
    for parent in parents or [f"{prefix}.mlp"]:
        yield f"{parent}.gate_proj", (INTERMEDIATE, HIDDEN)
        yield f"{parent}.up_proj", (INTERMEDIATE, HIDDEN)
        yield f"{parent}.down_proj", (HIDDEN, INTERMEDIATE)


def _config(layers: int, tied: bool, experts: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM" if experts else "LlamaForCausalLM"],
        "model_type": "qwen3_moe" if experts else "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_hidden_layers": layers,
        "vocab_size": VOCAB,
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
    }
    if experts:
        config |= {"num_local_experts": experts, "moe_intermediate_size": INTERMEDIATE}
    return config


def linear(module: str, algo: str | None, shape: tuple[int, int]) -> dict[str, Tensor]:
    """One linear layer as ModelOpt stores it; `shape` is (out_features, in_features)."""
    rows, columns = shape
    if algo is None:
        return {f"{module}.weight": bf16(shape)}
    if algo in {"NVFP4", "W4A16_NVFP4"}:
        codes = np.random.default_rng(rows).integers(0, 256, (rows, columns // 2), np.uint8)
        tensors = {
            "weight": ("U8", codes.shape, codes.tobytes()),
            "weight_scale": fp8((rows, columns // 16)),
            "weight_scale_2": f32(()),
        }
    else:
        scale = {
            "FP8": (),
            "FP8_PER_CHANNEL_PER_TOKEN": (rows,),
            "FP8_PB_WO": (-(-rows // 128), 1, -(-columns // 128), 1),
        }[algo.upper()]
        tensors = {"weight": fp8(shape), "weight_scale": f32(scale)}
    if algo in {"FP8", "NVFP4"}:
        tensors["input_scale"] = f32(())
    return {f"{module}.{suffix}": tensor for suffix, tensor in tensors.items()}


def f32(shape: tuple[int, ...], value: float = 0.0028) -> Tensor:
    """A float32 tensor of one value."""
    return "F32", shape, np.full(shape, value, "<f4").tobytes()


def bf16(shape: tuple[int, ...]) -> Tensor:
    """Random small values."""
    values = np.random.default_rng(len(shape)).normal(0, 0.02, shape).astype("<f4")
    return "BF16", shape, (values.view("<u4") >> 16).astype("<u2").tobytes()


def fp8(shape: tuple[int, ...]) -> Tensor:
    """Random positive E4M3 codes, neither zero nor NaN."""
    codes = np.random.default_rng(len(shape)).integers(1, 0x7F, shape, np.uint8)
    return "F8_E4M3", shape, codes.tobytes()


def declaration(algo: str, exclude: tuple[str, ...], algos: Mapping[str, str]) -> dict[str, Any]:
    """What ModelOpt 0.47 declares, without the envelope."""
    body: dict[str, Any] = {"quant_algo": algo, "kv_cache_quant_algo": None}
    if algo == "MIXED_PRECISION":
        sizes = {"NVFP4": {"group_size": 16}}
        layers = {name: {"quant_algo": own} | sizes.get(own, {}) for name, own in algos.items()}
        return body | {"quantized_layers": layers}
    if "NVFP4" in algo:
        body["group_size"] = 16
    return body | {"exclude_modules": list(exclude)}


def nested(body: Mapping[str, Any]) -> dict[str, Any]:
    """hf_quant_config.json."""
    return {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": dict(body)}


def flat(body: Mapping[str, Any]) -> dict[str, Any]:
    """config.json's quantization_config."""
    algo = body["quant_algo"]
    arguments = NVFP4_ARGUMENTS if "NVFP4" in algo else FP8_ARGUMENTS
    config = {
        "ignore": body.get("exclude_modules", []),
        "quant_algo": algo,
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quant_method": "modelopt",
    }
    if algo in {"FP8", "NVFP4", "W4A16_NVFP4"}:
        group = {"weights": arguments, "targets": ["Linear"]}
        config["config_groups"] = {"group_0": group}
    if "quantized_layers" in body:
        config["quantized_layers"] = body["quantized_layers"]
    return config


def write_shards(path: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    """Write model.safetensors, or that many shards and their index."""
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors)
        return
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        write_safetensors(path / file, {name: tensors[name] for name in mine})
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    write_json(path / "model.safetensors.index.json", index)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file as the safetensors library does."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
    write_raw(path, json.dumps(header).encode(), b"".join(data for _, _, data in tensors.values()))


def write_raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    """Write any header, and any claim about its length."""
    claimed = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", claimed) + header + data)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a sound file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def edit_tensors(
    path: Path, change: Callable[[dict[str, Tensor]], object], file: str = "model.safetensors"
) -> None:
    """Change the tensors of one weight file."""
    tensors = read_safetensors(path / file)
    change(tensors)
    write_safetensors(path / file, tensors)


def edit_json(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change one JSON file of a checkpoint."""
    value = json.loads((path / name).read_text())
    change(value)
    write_json(path / name, value)


def edit_declarations(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what both files declare, in the same way."""
    edit_json(path, "hf_quant_config.json", lambda value: change(value["quantization"]))
    edit_json(path, "config.json", lambda value: change(value["quantization_config"]))


def write_json(path: Path, value: object) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(value, indent=1))
