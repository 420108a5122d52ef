"""The layouts of real models as sparse files: true headers and sizes, and data that is zero.

Nothing but the headers takes room on the disk, and the scales where they are asked for.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints

BYTES = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}
SCALE_BYTE = b"\x70"
"""E4M3's 128: a sound block scale."""


class Model(NamedTuple):
    """Figures of a decoder; `experts` 0 for a dense one."""

    algo: str
    layers: int
    hidden: int
    intermediate: int
    kv: int
    vocabulary: int
    experts: int = 0


DENSE_16GB = Model("FP8", 48, 5120, 13824, 1024, 128256)
LLAMA_8B = Model("NVFP4", 32, 4096, 14336, 1024, 128256)
MOE_700GB = Model("NVFP4", 61, 7168, 4096, 1024, 129280, experts=243)

Entry = tuple[str, str, tuple[int, ...]]


def linear(module: str, algo: str, rows: int, columns: int) -> Iterator[Entry]:
    """One layer as ModelOpt stores it."""
    if algo == "NVFP4":
        yield f"{module}.weight", "U8", (rows, columns // 2)
        yield f"{module}.weight_scale", "F8_E4M3", (rows, columns // 16)
        yield f"{module}.weight_scale_2", "F32", ()
    else:
        yield f"{module}.weight", "F8_E4M3", (rows, columns)
        yield f"{module}.weight_scale", "F32", ()
    yield f"{module}.input_scale", "F32", ()


def entries(model: Model) -> Iterator[Entry]:
    """Every tensor of the model, in the order of its layers."""
    yield "model.embed_tokens.weight", "BF16", (model.vocabulary, model.hidden)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{norm}.weight", "BF16", (model.hidden,)
        for name, rows in (("q", model.hidden), ("k", model.kv), ("v", model.kv)):
            module = f"{prefix}.self_attn.{name}_proj"
            yield from linear(module, model.algo, rows, model.hidden)
        yield from linear(f"{prefix}.self_attn.o_proj", model.algo, model.hidden, model.hidden)
        parents = [f"{prefix}.mlp.experts.{expert}" for expert in range(model.experts)]
        if parents:
            yield f"{prefix}.mlp.gate.weight", "BF16", (model.experts, model.hidden)
        for parent in parents or [f"{prefix}.mlp"]:
            for name in ("gate_proj", "up_proj"):
                module = f"{parent}.{name}"
                yield from linear(module, model.algo, model.intermediate, model.hidden)
            module = f"{parent}.down_proj"
            yield from linear(module, model.algo, model.hidden, model.intermediate)
    yield "model.norm.weight", "BF16", (model.hidden,)
    yield "lm_head.weight", "BF16", (model.vocabulary, model.hidden)


def write(path: Path, model: Model, shards: int, *, scales: bool = False) -> int:
    """Write the checkpoint; returns its number of tensors.

    Args:
        path: The directory, made here.
        model: What is laid out.
        shards: Weight files.
        scales: Whether the scales get sound values, which then take room on the disk, and each
            weight a value that is not zero.
    """
    path.mkdir(parents=True)
    everything = list(entries(model))
    weight_map = {}
    each = -(-len(everything) // shards)
    for shard in range(shards):
        mine = everything[shard * each : (shard + 1) * each]
        # The safetensors library sorts by alignment, then by name.
        mine.sort(key=lambda entry: (-BYTES[entry[1]], entry[1], entry[0]))
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        _write_shard(path / file, mine, scales)
        weight_map |= {name: file for name, _, _ in mine}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    _write_configuration(path, model)
    return len(everything)


def _write_shard(path: Path, mine: list[Entry], scales: bool) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in mine:
        size = math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
        for name, dtype, _ in mine if scales else ():
            begin, stop = header[name]["data_offsets"]
            if "scale" not in name:
                file.seek(8 + len(raw) + (begin + stop) // 2)
                file.write(SCALE_BYTE)
            else:
                file.seek(8 + len(raw) + begin)
                one = struct.pack("<f", 0.0028) if dtype == "F32" else SCALE_BYTE
                file.write(one * ((stop - begin) // len(one)))


def _write_configuration(path: Path, model: Model) -> None:
    exclude = ["lm_head", "model.embed_tokens"]
    exclude += [f"model.layers.{n}.mlp.gate" for n in range(model.layers) if model.experts]
    declared = checkpoints.declaration(model.algo, tuple(exclude), {})
    checkpoints.write_json(path / "hf_quant_config.json", checkpoints.nested(declared))
    config = {
        "architectures": ["Qwen3MoeForCausalLM" if model.experts else "LlamaForCausalLM"],
        "model_type": "qwen3_moe" if model.experts else "llama",
        "hidden_size": model.hidden,
        "intermediate_size": model.intermediate,
        "num_attention_heads": model.hidden // 128,
        "num_key_value_heads": model.kv // 128,
        "head_dim": 128,
        "num_hidden_layers": model.layers,
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "quantization_config": checkpoints.flat(declared),
    }
    if model.experts:
        config |= {"num_experts": model.experts, "moe_intermediate_size": model.intermediate}
    checkpoints.write_json(path / "config.json", config)
    checkpoints.write_json(path / "tokenizer.json", {"version": "1.0"})
    checkpoints.write_json(path / "generation_config.json", {"eos_token_id": 2})
