"""Tiny checkpoints that the compressed-tensors library itself compressed."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import checkpoints
import torch
from checkpoints import Tensor
from compressed_tensors.compressors.base import compress_module
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    initialize_module_for_quantization,
)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

DTYPES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.int64: "I64",
}


def compressed(
    path: Path,
    scheme: Mapping[str, Any],
    *,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    kv_cache_scheme: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Compress every linear layer of `checkpoints.build`'s tiny model.

    Args:
        path: The directory, made here.
        scheme: `QuantizationScheme`'s arguments without targets; `Linear` is its target.
        others: Leaf name to the scheme of the layers of that name; their target is an expression.
        kv_cache_scheme: As `QuantizationArgs` has it.
        options: `checkpoints.build`'s.
    """
    checkpoints.build(path, None, **options)
    return compress(path, scheme, others=others, kv_cache_scheme=kv_cache_scheme)


def compress(
    path: Path,
    scheme: Mapping[str, Any],
    *,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    kv_cache_scheme: Mapping[str, Any] | None = None,
) -> Path:
    """Compress every linear layer of a BF16 checkpoint of one file; see `compressed`."""
    others = others or {}
    schemes = {
        leaf: QuantizationScheme(targets=[f"re:.*\\.{leaf}$"], **other)
        for leaf, other in others.items()
    }
    rest = QuantizationScheme(targets=["Linear"], **scheme)
    stored = checkpoints.read_safetensors(path / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        module, _, _ = name.rpartition(".")
        leaf = module.rpartition(".")[2]
        if not leaf.endswith("_proj"):
            tensors[name] = tensor
            continue
        own = schemes.get(leaf, rest).model_dump_json()
        for suffix, value in compressed_linear(tensor, own).items():
            tensors[f"{module}.{suffix}"] = value
    checkpoints.write_safetensors(path / "model.safetensors", tensors)
    config = _config([*schemes.values(), rest], kv_cache_scheme)
    checkpoints.edit_json(path, "config.json", lambda c: c.update(quantization_config=config))
    return path


def values(tensor: Tensor) -> torch.Tensor:
    """A BF16 tensor as torch has it."""
    _, shape, data = tensor
    return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).reshape(shape)


@lru_cache(maxsize=64)
def compressed_linear(tensor: Tensor, json: str) -> Mapping[str, Tensor]:
    """One layer's parameters, compressed by the library; `json` is its `QuantizationScheme`."""
    scheme, stored = QuantizationScheme.model_validate_json(json), values(tensor)
    module = torch.nn.Linear(stored.shape[1], stored.shape[0], bias=False, dtype=torch.bfloat16)
    module.weight.data = stored
    initialize_module_for_quantization(module, scheme, force_zero_point=False)
    args = scheme.weights
    low, high = _extremes(stored.float(), args)
    factor = None
    if args.strategy == "tensor_group":
        # One for all, as llm-compressor has it at least for layers that runtimes join.
        factor = generate_gparam(torch.tensor(-0.1), torch.tensor(0.1))
        module.weight_global_scale.data = factor
    scale, zero = calculate_qparams(low, high, args, global_scale=factor)
    module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
    if not args.symmetric:
        module.weight_zero_point.data = zero.reshape(module.weight_scale.shape)
    for name, value in (("input_scale", 0.02), ("input_global_scale", 100.0)):
        if hasattr(module, name):
            getattr(module, name).data.fill_(value)
    compress_module(module)
    return {name: raw(value) for name, value in module.state_dict().items()}


def _extremes(values: torch.Tensor, args: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = values.shape
    if args.strategy == "tensor":
        return values.min().reshape(1), values.max().reshape(1)
    if args.strategy == "block":
        down, across = args.block_structure
        padded = torch.zeros(-(-rows // down) * down, -(-columns // across) * across)
        padded[:rows, :columns] = values
        blocks = padded.reshape(-(-rows // down), down, -1, across)
        return blocks.amin((1, 3)), blocks.amax((1, 3))
    groups = values.reshape(rows, -1, args.group_size or columns)
    return groups.amin(-1), groups.amax(-1)


def _config(schemes: list[QuantizationScheme], kv_cache: Mapping[str, Any] | None) -> Any:
    """What the library writes into config.json."""
    for scheme in schemes:
        module = torch.nn.Linear(128, 128)
        initialize_module_for_quantization(module, scheme)
        scheme.format = scheme.format or _format(scheme)
    formats = {str(getattr(s.format, "value", s.format)) for s in schemes}
    config = QuantizationConfig(
        config_groups={f"group_{number}": scheme for number, scheme in enumerate(schemes)},
        format=formats.pop() if len(formats) == 1 else "mixed-precision",
        quantization_status="compressed",
        ignore=["lm_head"],
        kv_cache_scheme=kv_cache,
    )
    return config.model_dump(mode="json") | {"version": "0.20.0", "sparsity_config": {}}


def _format(scheme: QuantizationScheme) -> Any:
    from compressed_tensors.compressors.format import infer_module_format

    return infer_module_format(torch.nn.Linear, scheme)


def raw(value: torch.Tensor) -> Tensor:
    """A torch tensor as `checkpoints` writes it."""
    data = value.detach().contiguous()
    return (
        DTYPES[data.dtype],
        tuple(data.shape),
        data.reshape(-1).view(torch.uint8).numpy().tobytes(),
    )
