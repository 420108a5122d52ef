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
    if algo is None:
        return {f"{module}.weight": bf16(shape)}
    name = algo.upper()
    tensors = {"weight": _weight(name, shape), "weight_scale": _weight_scale(name, shape)}
    if "NVFP4" in name or name == "W4A8_AWQ":
        tensors["weight_scale_2"] = f32(())
    if name in STATIC_INPUTS:
        tensors["input_scale"] = f32(())
    if name in SMOOTHED:
        tensors["pre_quant_scale"] = bf16((shape[1],), 1.0)
    if name == "NVFP4_SVD":
        tensors["weight_quantizer._svdquant_lora_a"] = bf16((8, shape[1]))
        tensors["weight_quantizer._svdquant_lora_b"] = bf16((shape[0], 8))
    return {f"{module}.{suffix}": tensor for suffix, tensor in tensors.items()}


GROUPS = {
    "NVFP4": 16, "W4A16_NVFP4": 16, "NVFP4_AWQ": 16, "NVFP4_SVD": 16, "W4A8_NVFP4_FP8": 32,
    "MXFP4": 32, "W4A16_MXFP4": 32, "W4A8_MXFP4_FP8": 32, "W4A8_MXFP4_MXFP8": 32, "MXFP8": 32,
    "W4A16_AWQ": 64, "W4A8_AWQ": 64,
}  # fmt: skip
"""Group size by algorithm; AWQ's own 128 is wider than the tiny model."""

STATIC_INPUTS = frozenset(
    {"FP8", "NVFP4", "NVFP4_AWQ", "NVFP4_SVD", "W4A8_NVFP4_FP8", "W4A8_AWQ", "W8A8_SQ_PER_CHANNEL"}
)
SMOOTHED = frozenset({"W4A16_AWQ", "W4A8_AWQ", "NVFP4_AWQ", "NVFP4_SVD", "W8A8_SQ_PER_CHANNEL"})
ALGORITHMS = (
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "FP8_PB_REAL", *GROUPS, "W8A16",
    "W8A8_SQ_PER_CHANNEL",
)  # fmt: skip
"""Every algorithm that `linear` writes."""


def _weight(name: str, shape: tuple[int, int]) -> Tensor:
    rows, columns = shape
    if name.startswith("W8A"):
        return _codes("I8", shape)
    if name.endswith("_AWQ") and "NVFP4" not in name:
        return _codes("U8", (rows // 2, columns))
    if "FP4" in name:
        return _codes("U8", (rows, columns // 2))
    return fp8(shape)


def _weight_scale(name: str, shape: tuple[int, int]) -> Tensor:
    rows, columns = shape
    if name in GROUPS:
        groups = (rows, columns // GROUPS[name])
        if "MX" in name:
            return e8m0(groups)
        return fp8(groups) if "NVFP4" in name else f32(groups)
    if name.startswith("FP8_PB"):
        return f32((-(-rows // 128), 1, -(-columns // 128), 1))
    return f32(() if name == "FP8" else (rows,))


def _codes(dtype: str, shape: tuple[int, int]) -> Tensor:
    codes = np.random.default_rng(shape[0]).integers(0, 256, shape, np.uint8)
    return dtype, shape, codes.tobytes()


def e8m0(shape: tuple[int, ...]) -> Tensor:
    """Random powers of two below one, as ModelOpt stores the scales of MX formats."""
    codes = np.random.default_rng(len(shape)).integers(115, 125, shape, np.uint8)
    return "U8", shape, codes.tobytes()


def f32(shape: tuple[int, ...], value: float = 0.0028) -> Tensor:
    """A float32 tensor of one value."""
    return "F32", shape, np.full(shape, value, "<f4").tobytes()


def bf16(shape: tuple[int, ...], mean: float = 0.0) -> Tensor:
    """Random values near the mean."""
    values = np.random.default_rng(len(shape)).normal(mean, 0.02, shape).astype("<f4")
    return "BF16", shape, (values.view("<u4") >> 16).astype("<u2").tobytes()


def fp8(shape: tuple[int, ...]) -> Tensor:
    """Random positive E4M3 codes, neither zero nor NaN."""
    codes = np.random.default_rng(len(shape)).integers(1, 0x7F, shape, np.uint8)
    return "F8_E4M3", shape, codes.tobytes()


def declaration(algo: str, exclude: tuple[str, ...], algos: Mapping[str, str]) -> dict[str, Any]:
    """What ModelOpt 0.47 declares, without the envelope."""
    body: dict[str, Any] = {"quant_algo": algo, "kv_cache_quant_algo": None}
    if algo == "MIXED_PRECISION":
        layers = {name: {"quant_algo": own} | _options(own) for name, own in algos.items()}
        return body | {"quantized_layers": layers}
    return body | _options(algo) | {"exclude_modules": list(exclude)}


def _options(algo: str) -> dict[str, Any]:
    """What ModelOpt declares beside the algorithm: none for `mxfp4`, written in lower case."""
    name = algo.upper()
    options: dict[str, Any] = {}
    if name in GROUPS and name != "MXFP4":
        options["group_size"] = GROUPS[name]
    if name in SMOOTHED and name in GROUPS:
        options |= {"has_zero_point": False, "pre_quant_scale": True}
    return options


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
    if algo in {"FP8", "NVFP4", "W4A16_NVFP4", "NVFP4_SVD"}:
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
