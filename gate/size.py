"""What a checkpoint weighs, on disk and decoded, from headers alone."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from gate.checkpoint import DTYPE_BITS, Checkpoint, TensorInfo
from gate.quantization import Format, QuantizedLayer, Role
from gate.records import Size, SizeBucket

CLASSES = (
    ("vision", r"visual|vision\w*|image\w*|audio\w*|mm_projector|multi_modal_projector"),
    ("lm_head", r"lm_head|output_head|head"),
    ("norm", r"\w*norm\w*|ln_\w+|ln\d*"),
    ("embedding", r"\w*embed\w*|wte|wpe"),
    ("router", r"router|gate|shared_expert_gate|e_score_correction_bias"),
    ("experts", r"experts|shared_experts?"),
    ("attention", r"\w*attn\w*|\w*attention\w*|mixer"),
    ("mlp", r"\w*mlp\w*|ffn|feed_forward"),
)
"""Module class to the part of a tensor's name that tells it; the first that fits decides."""

_CLASSES = tuple((name, re.compile(rf"(^|\.)({parts})(\.|$)")) for name, parts in CLASSES)


def size(checkpoint: Checkpoint, form: Format | None, reference: Checkpoint | None = None) -> Size:
    """Bytes, parameters and bits per weight.

    Args:
        checkpoint: What is weighed.
        form: Its format; None where it is not quantized.
        reference: The unquantized checkpoint that it is compared with.
    """
    layers = tuple(form.layers(checkpoint)) if form else ()
    parameters = _parameters(checkpoint, form, layers)
    stored = sum(info.nbytes for info in checkpoint.tensors.values())
    total = sum(parameters.values())
    by_dtype: dict[str, Counter[str]] = defaultdict(Counter)
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    for name, info in checkpoint.tensors.items():
        by_dtype[info.dtype].update(_bucket(info, parameters[name]))
        by_class[_class(name)].update(_bucket(info, parameters[name]))
    return Size(
        stored_bytes=stored,
        parameters=total,
        bits_per_weight=8 * stored / total if total else math.nan,
        linear_bits_per_weight=_linear_bits(layers, parameters),
        by_dtype=_largest_first(by_dtype),
        by_class=_largest_first(by_class),
        reference_bytes=sum(info.nbytes for info in reference.tensors.values())
        if reference
        else None,
    )


def decoded_bytes(checkpoint: Checkpoint, form: Format | None, bytes_per_parameter: int = 2) -> int:
    """Memory that the decoded weights take, in bytes.

    A head that the model ties to its embedding is the same memory, stored or not.

    Args:
        checkpoint: What will be loaded.
        form: Its format; None where it is not quantized.
        bytes_per_parameter: Of the dtype in which the model computes.
    """
    layers = tuple(form.layers(checkpoint)) if form else ()
    parameters = _parameters(checkpoint, form, layers)
    config = checkpoint.config
    tied = config.get("tie_word_embeddings", checkpoint.text_config.get("tie_word_embeddings"))
    head = sum(
        count
        for name, count in parameters.items()
        if tied is True and name.rpartition(".")[0].endswith("lm_head")
    )
    return (sum(parameters.values()) - head) * bytes_per_parameter


def _parameters(
    checkpoint: Checkpoint, form: Format | None, layers: tuple[QuantizedLayer, ...]
) -> Mapping[str, int]:
    """Tensor to the parameters that it stands for: packed values count each, scales not at all."""
    counts = {
        name: 0 if form is not None and form.is_companion(name) else info.numel
        for name, info in checkpoint.tensors.items()
    }
    lowest = form.weight_bits(checkpoint) if form else None
    for layer in layers:
        weight = layer.tensors.get(Role.WEIGHT)
        if weight is not None and layer.packed:
            bits = layer.scheme.num_bits if layer.scheme else lowest
            counts[weight.name] = weight.numel * _values_per_element(weight, bits)
    return counts


def _values_per_element(weight: TensorInfo, bits: int | None) -> int:
    """Integers hold several weights each; a floating-point element is one weight."""
    if not bits or not weight.dtype.startswith(("U", "I")):
        return 1
    return max(DTYPE_BITS[weight.dtype] // bits, 1)


def _linear_bits(layers: tuple[QuantizedLayer, ...], parameters: Mapping[str, int]) -> float | None:
    """Stored bits of quantized layers, their scales included, over their parameters."""
    packed = [layer for layer in layers if layer.packed]
    stored = sum(info.nbytes for layer in packed for info in layer.tensors.values())
    total = sum(parameters[layer.tensors[Role.WEIGHT].name] for layer in packed)
    return 8 * stored / total if total else None


def _class(name: str) -> str:
    return next((kind for kind, parts in _CLASSES if parts.search(name)), "other")


def _bucket(info: TensorInfo, parameters: int) -> dict[str, int]:
    return {"stored_bytes": info.nbytes, "parameters": parameters}


def _largest_first(counted: Mapping[str, Counter[str]]) -> dict[str, SizeBucket]:
    ranked = sorted(counted.items(), key=lambda item: (-item[1]["stored_bytes"], item[0]))
    return {
        name: SizeBucket(stored_bytes=count["stored_bytes"], parameters=count["parameters"])
        for name, count in ranked
    }
