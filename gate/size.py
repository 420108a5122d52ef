"""What a checkpoint weighs, on disk and decoded, from headers alone."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from gate.architecture import template
from gate.checkpoint import Checkpoint
from gate.quantization import Format, QuantizedLayer, Role
from gate.records import Size, SizeBucket

CLASSES = (
    ("vision", r"visual|vision\w*|image\w*|audio\w*|mm_projector|multi_modal_projector"),
    ("lm_head", r"lm_head|output_head|head|\Aoutput(?=\.weight)"),
    ("norm", r"\w*norm\w*|ln_\w+|ln\d*"),
    ("embedding", r"\w*embed\w*|wte|wpe|\w+_embd"),
    ("router", r"router|gate|ffn_gate_inp|shared_expert_gate|e_score_correction_bias"),
    ("experts", r"experts|shared_experts?|ffn_\w+_(ch|sh)?exps?"),
    ("attention", r"\w*attn\w*|\w*attention\w*|mixer"),
    ("mlp", r"\w*mlp\w*|ffn\w*|feed_forward"),
)
"""Module class to the part of a tensor's name that tells it; the first that fits decides."""

WORKSPACE_BYTES = 5 * 2**29
"""Libraries, activations and logits of one batch (2.5 GiB)."""
DECODING_SHARE = 0.3
"""Decoding and fusing hold up to this much of the decoded model beside it."""

_NUMBERED = re.compile(r".*?\.\d+\.")
"""The beginning of a tensor's name that a layer shares with no other."""

_CLASSES = tuple((name, re.compile(rf"(^|\.)({parts})(\.|$)")) for name, parts in CLASSES)


def size(
    checkpoint: Checkpoint,
    form: Format | None,
    reference: Checkpoint | None = None,
    layers: tuple[QuantizedLayer, ...] = (),
) -> Size:
    """Bytes, parameters and bits per weight.

    Args:
        checkpoint: What is weighed.
        form: Its format; None where it is not quantized.
        reference: The unquantized checkpoint that it is compared with.
        layers: What `form.layers` gave, where that was asked before.
    """
    layers = layers or (tuple(form.layers(checkpoint)) if form else ())
    counts = parameters(checkpoint, form, layers)
    by_dtype: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    by_class: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    classes = _classes(layers)
    elements = 0
    for name, info in checkpoint.tensors.items():
        nbytes, count = info.nbytes, counts[name]
        elements += info.numel
        for bucket in (by_dtype[info.dtype], by_class[classes.get(name) or _class(name)]):
            bucket[0] += nbytes
            bucket[1] += count
    stored = sum(nbytes for nbytes, _ in by_dtype.values())
    total = sum(counts.values())
    return Size(
        stored_bytes=stored,
        stored_elements=elements,
        parameters=total,
        bits_per_weight=8 * stored / total if total else math.nan,
        linear_bits_per_weight=_linear_bits(layers, counts),
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
    counts = parameters(checkpoint, form, layers)
    head = sum(count for name, count in counts.items() if is_tied_head(checkpoint, name))
    return (sum(counts.values()) - head) * bytes_per_parameter


def part_bytes(checkpoint: Checkpoint, form: Format | None, bytes_per_parameter: int = 2) -> int:
    """Memory that the largest part takes once it is decoded, in bytes.

    A part is a numbered layer with all that it holds, or a tensor outside of them.

    Args:
        checkpoint: What will be loaded part by part.
        form: Its format; None where it is not quantized.
        bytes_per_parameter: Of the dtype in which the model computes.
    """
    layers = tuple(form.layers(checkpoint)) if form else ()
    parts: dict[str, int] = defaultdict(int)
    for name, count in parameters(checkpoint, form, layers).items():
        numbered = _NUMBERED.match(name)
        parts[numbered[0] if numbered else name] += count
    return max(parts.values(), default=0) * bytes_per_parameter


def is_tied_head(checkpoint: Checkpoint, tensor: str) -> bool:
    """Whether a tensor belongs to a head that is its model's embedding: it is not loaded twice."""
    if not tensor.rpartition(".")[0].endswith("lm_head"):
        return False
    config = checkpoint.config
    tied = config.get("tie_word_embeddings", checkpoint.text_config.get("tie_word_embeddings"))
    return tied is True


def workspace_bytes(decoded: int = 0) -> int:
    """Memory beside weights and KV cache, an allowance, in bytes.

    Args:
        decoded: Bytes of weights that are decoded while they are loaded.
    """
    return WORKSPACE_BYTES + int(decoded * DECODING_SHARE)


def parameters(
    checkpoint: Checkpoint, form: Format | None, layers: tuple[QuantizedLayer, ...]
) -> Mapping[str, int]:
    """Tensor to the parameters that it stands for: packed values count each, scales not at all.

    Where headers do not tell a weight's shape, its bits do; where they tell neither, each stored
    element counts as one.
    """
    counts = {
        name: 0 if form is not None and form.is_companion(name) else info.numel
        for name, info in checkpoint.tensors.items()
    }
    for layer in layers:
        weight = layer.tensors.get(Role.WEIGHT)
        if weight is None or not layer.packed:
            continue
        if layer.shape is not None:
            counts[weight.name] = math.prod(layer.shape)
        elif layer.scheme is not None and not weight.dtype.startswith("F8"):
            counts[weight.name] = 8 * weight.nbytes // layer.scheme.num_bits
    return counts


def _linear_bits(layers: tuple[QuantizedLayer, ...], parameters: Mapping[str, int]) -> float | None:
    """Stored bits of quantized layers, their scales included, over their parameters."""
    packed = [layer for layer in layers if layer.packed]
    stored = sum(info.nbytes for layer in packed for info in layer.tensors.values())
    total = sum(parameters[layer.tensors[Role.WEIGHT].name] for layer in packed)
    return 8 * stored / total if total else None


def _classes(layers: Iterable[QuantizedLayer]) -> Mapping[str, str]:
    """Tensor to class, told once for all tensors of a layer."""
    classes: dict[str, str] = {}
    for layer in layers:
        names = [info.name for info in layer.tensors.values()]
        classes |= dict.fromkeys(names, _class(names[0]))
    return classes


def _class(name: str) -> str:
    return _class_of(template(name))


@lru_cache(maxsize=1 << 12)
def _class_of(template: str) -> str:
    name = template.replace("#", "0")
    return next((kind for kind, parts in _CLASSES if parts.search(name)), "other")


def _largest_first(counted: Mapping[str, Sequence[int]]) -> dict[str, SizeBucket]:
    """Stored bytes and parameters of each part."""
    ranked = sorted(counted.items(), key=lambda item: (-item[1][0], item[0]))
    return {
        name: SizeBucket(stored_bytes=nbytes, parameters=parameters)
        for name, (nbytes, parameters) in ranked
    }
