"""GGUF: every tensor has its own type, and its scales lie among its weights.

Source: https://github.com/ggml-org/llama.cpp (`ggml-common.h`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from gate import ggml
from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import decode_float
from gate.errors import CheckpointError, UnknownFormatError
from gate.quantization import Declaration, QuantizedLayer, Role, Scheme

WITH_MINIMUM = frozenset({"Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K"})
"""Types whose blocks store the smallest weight as well."""
FLOATING = frozenset({"MXFP4", "NVFP4"})
TWO_LEVELS = 256
"""Weights of a block that scales smaller groups by a scale of its own."""


class Gguf:
    """The format of GGUF files, quantized or not."""

    name = "gguf"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Any GGUF file."""
        return checkpoint.container is not None and checkpoint.container.suffix == ".gguf"

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Every quantized type; those of the matrices where there is none."""
        infos = checkpoint.tensors.values()
        quantized = {info.dtype for info in infos if ggml.is_quantized(info.dtype)}
        if quantized:
            return {dtype: ggml.is_decodable(dtype) for dtype in sorted(quantized)}
        found = {info.dtype for info in infos if len(info.shape) > 1}
        return {dtype: dtype in ggml.FLOATS for dtype in sorted(found)}

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """None: no file says it beside the tensors themselves."""
        return ()

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The lowest width of a quantized tensor in bits."""
        schemes = [_scheme(algo) for algo in self.algorithms(checkpoint)]
        return min((scheme.num_bits for scheme in schemes if scheme), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """Every tensor of a quantized type, embeddings and expert stacks among them."""
        for info in checkpoint.tensors.values():
            if ggml.is_quantized(info.dtype):
                yield QuantizedLayer(
                    name=info.name.removesuffix(".weight"),
                    algo=info.dtype,
                    scheme=_scheme(info.dtype),
                    input_scheme=None,
                    tensors={Role.WEIGHT: info},
                    expected={},
                    declared=True,
                    checkpoint=checkpoint,
                    shape=info.shape,
                )

    def is_companion(self, tensor: str) -> bool:
        """Scales that stand beside a weight: BitNet's and NVFP4's."""
        return tensor.endswith((".scale", ".input_scale"))

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """The weight's values by the package gguf, times the scale that stands beside it.

        Raises:
            UnknownFormatError: The package does not know the type.
            CheckpointError: The rows are no whole blocks, or the scale fits no weight.
        """
        if not ggml.is_decodable(layer.algo):
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        info, raw = layer.tensors[Role.WEIGHT], layer.read(Role.WEIGHT)
        if raw.ndim != len(info.shape) or not raw.size:
            raise _undecodable(layer, f"rows of {info.shape[-1:]} are no whole blocks")
        values = ggml.dequantize(raw, layer.algo)
        scale = layer.checkpoint.tensors.get(f"{layer.name}.scale")
        if scale is not None:
            values *= _scale(layer, scale)
        return xp.asarray(values)


def _scale(layer: QuantizedLayer, info: TensorInfo) -> Any:
    """A scale of the whole weight, or one of each expert's, of a shape that multiplies it."""
    import numpy as np

    experts = layer.tensors[Role.WEIGHT].shape[:-2]
    if info.dtype != "F32" or info.shape not in {(1,), experts}:
        raise _undecodable(layer, f"{info.name} is {info.dtype} of shape {info.shape}")
    values = decode_float(layer.checkpoint.read(info), info.dtype, np)
    return values.reshape((-1, 1, 1)) if info.shape == experts else values


def _undecodable(layer: QuantizedLayer, why: str) -> CheckpointError:
    return CheckpointError(
        f"{layer.name} cannot be decoded as {layer.algo}: {why}",
        "Validate the checkpoint first: gate lint " + layer.checkpoint.source,
    )


@lru_cache(maxsize=1 << 10)
def _scheme(dtype: str) -> Scheme | None:
    """How a type quantizes, its bits as its name counts them; None for a type unknown to ggml."""
    block, digits = ggml.block(dtype), re.search(r"\d", dtype)
    if block is None or digits is None or not ggml.is_quantized(dtype):
        return None
    return Scheme(
        num_bits=int(digits[0]),
        type="float" if dtype in FLOATING else "int",
        strategy="tensor_group" if block.weights == TWO_LEVELS else "group",
        group_size=block.weights,
        symmetric=dtype not in WITH_MINIMUM,
    )
