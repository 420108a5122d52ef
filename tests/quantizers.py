"""Tiny checkpoints as GPTQ, AWQ and bitsandbytes store them, packed from random weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
from checkpoints import Tensor, edit_json, edit_tensors

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Quantizer = Callable[[np.ndarray], Mapping[str, Tensor]]


def convert(
    path: Path,
    quantizer: Quantizer,
    declared: Mapping[str, Any],
    *,
    shards: int = 1,
    **options: Any,
) -> Path:
    """Write a BF16 checkpoint with `checkpoints.build` and replace its linear weights.

    Args:
        path: The directory.
        quantizer: From a weight (out_features, in_features) to what is stored below the module.
        declared: config.json's quantization_config.
        shards: Weight files.
        options: More of `checkpoints.build`.
    """
    checkpoints.build(path, None, **options)

    def change(tensors: dict[str, Tensor]) -> None:
        for name, (_, shape, _) in list(tensors.items()):
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in LINEARS:
                del tensors[name]
                weight = np.random.default_rng(shape[0]).normal(0, 0.02, shape)
                stored = quantizer(weight)
                tensors |= {f"{module}.{suffix}": tensor for suffix, tensor in stored.items()}

    edit_tensors(path, change)
    if shards > 1:
        tensors = checkpoints.read_safetensors(path / "model.safetensors")
        (path / "model.safetensors").unlink()
        checkpoints.write_shards(path, tensors, shards)
    edit_json(path, "config.json", lambda config: config.update(quantization_config=declared))
    return path


def tensor(array: np.ndarray) -> Tensor:
    """An array as it is stored."""
    names = {"int32": "I32", "float16": "F16", "float32": "F32", "uint8": "U8", "int8": "I8"}
    names |= {"uint32": "U32", "int16": "I16"}
    return names[array.dtype.name], array.shape, np.ascontiguousarray(array).tobytes()


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes packed densely along the last axis into 32-bit words, the lowest bits first."""
    spread = (codes[..., None] >> np.arange(bits)) & 1
    stream = spread.reshape((*codes.shape[:-1], -1)).astype(np.uint8)
    return np.packbits(stream, axis=-1, bitorder="little").view("<i4")


def grouped(
    weight: np.ndarray, bits: int, group_size: int, sym: bool, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (out, in), zeros and scales (out, groups), where `order` tells each input's group."""
    scales = np.empty((len(weight), order.max() + 1))
    zeros = np.empty_like(scales, dtype=np.int64)
    for group in range(order.max() + 1):
        part = weight[:, order == group]
        low, high = part.min(1), part.max(1)
        if sym:
            high = np.maximum(np.abs(low), high)
            low = -high
        scales[:, group] = (high - low) / (2**bits - 1)
        zeros[:, group] = 2 ** (bits - 1) if sym else np.round(-low / scales[:, group])
    codes = np.round(weight / scales[:, order]) + zeros[:, order]
    return codes.clip(0, 2**bits - 1).astype(np.int64), zeros, scales


def gptq(
    bits: int = 4,
    group_size: int = 32,
    *,
    sym: bool = True,
    desc_act: bool = False,
    v2: bool = False,
) -> Quantizer:
    """GPTQ's layers; v1 stores zeros less one."""

    def quantize(weight: np.ndarray) -> Mapping[str, Tensor]:
        width = weight.shape[1]
        order = np.arange(width) // (group_size if group_size > 0 else width)
        if desc_act:
            np.random.default_rng(0).shuffle(order)
        codes, zeros, scales = grouped(weight, bits, group_size, sym, order)
        stored = zeros if v2 else (zeros - 1) % 2**bits
        return {
            "qweight": tensor(packed(codes, bits).T),
            "qzeros": tensor(packed(stored.T, bits)),
            "scales": tensor(scales.T.astype(np.float16)),
            "g_idx": tensor(order.astype(np.int32)),
        }

    return quantize


def awq(group_size: int = 32) -> Quantizer:
    """AWQ's GEMM layers: eight outputs a word, in its own order."""

    def quantize(weight: np.ndarray) -> Mapping[str, Tensor]:
        order = np.arange(weight.shape[1]) // (group_size if group_size > 0 else weight.shape[1])
        codes, zeros, scales = grouped(weight, 4, group_size, False, order)

        def interleaved(values: np.ndarray) -> np.ndarray:
            eights = values.T.reshape((values.shape[1], -1, 8))
            return packed(eights[..., [0, 2, 4, 6, 1, 3, 5, 7]].reshape(values.T.shape), 4)

        return {
            "qweight": tensor(interleaved(codes)),
            "qzeros": tensor(interleaved(zeros.clip(0, 15))),
            "scales": tensor(scales.T.astype(np.float16)),
        }

    return quantize


def mlx(bits: int = 4, group_size: int = 32) -> Quantizer:
    """MLX's affine layers: half of the groups have a scale below zero, as real ones do."""

    def quantize(weight: np.ndarray) -> Mapping[str, Tensor]:
        groups = weight.reshape((len(weight), -1, group_size))
        low, high = groups.min(-1), groups.max(-1)
        downward = np.abs(low) <= np.abs(high)
        scales = np.where(downward, low - high, high - low) / (2**bits - 1)
        biases = np.where(downward, high, low)
        codes = np.round((groups - biases[..., None]) / scales[..., None]).astype(np.int64)
        return {
            "weight": tensor(packed(codes.reshape(weight.shape), bits).view("<u4")),
            "scales": tensor(scales.astype(np.float16)),
            "biases": tensor(biases.astype(np.float16)),
        }

    return quantize


def exl3(bits: int = 3) -> Quantizer:
    """EXL3's layers, with any codes: a tile of 16 by 16 weights takes 16 times `bits` words."""

    def quantize(weight: np.ndarray) -> Mapping[str, Tensor]:
        rows, columns = weight.shape
        codes = np.random.default_rng(0).integers(-9, 9, (columns // 16, rows // 16, 16 * bits))
        signs = np.random.default_rng(1).choice([-1.0, 1.0], rows + columns).astype(np.float16)
        return {
            "trellis": tensor(codes.astype(np.int16)),
            "suh": tensor(signs[:columns]),
            "svh": tensor(signs[columns:]),
            "mcg": tensor(np.array(1, np.int32)),
        }

    return quantize


def exl2(bits: int = 4) -> Quantizer:
    """EXL2's layers, with any codes."""

    def quantize(weight: np.ndarray) -> Mapping[str, Tensor]:
        rows, columns = weight.shape
        groups = columns // 32
        return {
            "q_weight": tensor(np.ones((columns * bits // 32, rows), np.int32)),
            "q_scale": tensor(np.ones((groups, rows // 8), np.int32)),
            "q_scale_max": tensor(np.full(groups, 0.01, np.float16)),
            "q_groups": tensor(np.ones(2 * groups, np.int16)),
            "q_invperm": tensor(np.arange(columns, dtype=np.int16)),
        }

    return quantize
