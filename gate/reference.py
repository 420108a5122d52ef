"""A quantized checkpoint beside the unquantized one that it was made from."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import decode_float
from gate.differences import differences
from gate.errors import GateError, UnknownFormatError
from gate.quantization import FLOAT_DTYPES, Format, QuantizedLayer, Role
from gate.records import LayerError, ReferenceResult
from gate.size import is_tied_head

if TYPE_CHECKING:
    import numpy as np

CHUNK_ELEMENTS = 1 << 22
"""Values compared at a time, so that memory does not grow with the tensor."""

PREFIXES = (("", ""), ("model.language_model.", "language_model.model."),
            ("language_model.model.", "model.language_model."),
            ("model.", "model.language_model."), ("model.language_model.", "model."))  # fmt: skip
"""Beginnings of names that versions of transformers write for the same module."""

EMBEDDINGS = (
    "model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "transformer.wte.weight",
)
"""What a language model's embedding is called."""

SMOOTHING = ("AWQ", "SQ", "SVD", "SMOOTH")
"""In an algorithm's name: weights and norms are scaled against each other."""


def compare(
    checkpoint: Checkpoint,
    form: Format | None,
    layers: Sequence[QuantizedLayer],
    original: Checkpoint,
) -> ReferenceResult:
    """Compare configuration, tokenizer and weights, layer by layer.

    Args:
        checkpoint: The candidate.
        form: Its format; None where it is not quantized.
        layers: Its quantized layers.
        original: The unquantized checkpoint.
    """
    found = tuple(differences(checkpoint, original))
    reason = _incomparable(checkpoint, original)
    if reason:
        return ReferenceResult(source=original.source, differences=found, skipped=(reason,))
    errors, skipped = _layers(form, layers, original)
    equal, changed = _unquantized(checkpoint, form, layers, original)
    return ReferenceResult(
        source=original.source,
        differences=found,
        layers=tuple(sorted(errors, key=_worst_first)),
        equal_tensors=equal,
        changed_tensors=tuple(changed),
        smoothed=_is_smoothed(form, checkpoint, layers),
        skipped=tuple(skipped),
    )


def _worst_first(error: LayerError) -> tuple[bool, float]:
    """What is no number is worse than any."""
    return not math.isnan(error.cosine), error.cosine


def _incomparable(checkpoint: Checkpoint, original: Checkpoint) -> str | None:
    """Why no weight is compared; None where they can be."""
    for opened in (checkpoint, original):
        if opened.broken_files or not opened.tensors:
            return f"weights: those of {opened.source} cannot be read"
    if checkpoint.container is not original.container:
        return "weights: the two are stored in different kinds of file, with different names"
    return None


def _layers(
    form: Format | None, layers: Sequence[QuantizedLayer], original: Checkpoint
) -> tuple[list[LayerError], list[str]]:
    """Errors of the layers that can be decoded, and why others were left out."""
    import numpy as np

    errors, undecoded, absent = [], dict[str, int](), 0
    for layer in layers:
        info = _counterpart(f"{layer.name}.weight", original)
        if form is None or not layer.packed:
            continue
        if info is None or info.dtype not in FLOAT_DTYPES:
            absent += 1
            continue
        try:
            decoded = form.dequantize(layer, np)
        except UnknownFormatError:
            undecoded[layer.algo] = undecoded.get(layer.algo, 0) + 1
            continue
        except (GateError, ValueError, KeyError, AssertionError):
            # What is wrong with the layer is another rule's finding.
            undecoded["an incomplete layout"] = undecoded.get("an incomplete layout", 0) + 1
            continue
        if tuple(decoded.shape) != info.shape:
            absent += 1
            continue
        errors.append(_error(layer, decoded, original.read(info), info.dtype))
    skipped = [
        f"{count:,} layers: {algo} has no decoder yet" for algo, count in sorted(undecoded.items())
    ]
    if absent:
        skipped.append(f"{absent:,} layers: the reference has no weight of that name and shape")
    return errors, skipped


def _error(
    layer: QuantizedLayer, decoded: "np.ndarray", raw: "np.ndarray", dtype: str
) -> LayerError:
    """Both measures in float64, a chunk at a time."""
    import numpy as np

    flat, codes = decoded.reshape(-1), raw.reshape(-1)
    squares = np.zeros(4)
    for begin in range(0, flat.size, CHUNK_ELEMENTS):
        ours = flat[begin : begin + CHUNK_ELEMENTS]
        theirs = decode_float(codes[begin : begin + CHUNK_ELEMENTS], dtype, np)
        with np.errstate(all="ignore"):
            gap = ours - theirs
            squares += [_dot(gap, gap), _dot(theirs, theirs), _dot(ours, ours), _dot(ours, theirs)]
    with np.errstate(all="ignore"):
        relative = np.sqrt(squares[0] / squares[1])
        cosine = squares[3] / np.sqrt(squares[1] * squares[2])
        gain = squares[3] / squares[1]
    return LayerError(
        layer=layer.name,
        algo=layer.algo,
        relative_rms=float(relative),
        cosine=float(cosine),
        gain=float(gain),
    )


def _dot(one: "np.ndarray", other: "np.ndarray") -> float:
    import numpy as np

    return float(np.dot(one, other))


def _counterpart(name: str, original: Checkpoint) -> TensorInfo | None:
    """The reference's tensor of that name, under any of the known beginnings."""
    for mine, theirs in PREFIXES:
        if name.startswith(mine):
            found = original.tensors.get(theirs + name[len(mine) :])
            if found is not None:
                return found
    return _embedding(original) if is_tied_head(original, name) else None


def _embedding(original: Checkpoint) -> TensorInfo | None:
    """The embedding of the language model, which is the head of one that is tied."""
    return next((original.tensors[name] for name in EMBEDDINGS if name in original.tensors), None)


def _unquantized(
    checkpoint: Checkpoint,
    form: Format | None,
    layers: Sequence[QuantizedLayer],
    original: Checkpoint,
) -> tuple[int, list[str]]:
    """How many float tensors equal the reference's bit for bit, and the names of the others."""
    import numpy as np

    quantized = {info.name for layer in layers if layer.packed for info in layer.tensors.values()}
    equal, changed = 0, []
    for name, info in checkpoint.tensors.items():
        if name in quantized or info.dtype not in FLOAT_DTYPES:
            continue
        if form is not None and form.is_companion(name):
            continue
        other = _counterpart(name, original)
        if other is None or other.dtype != info.dtype:
            continue  # an architecture or dtype difference is told as such
        same = info.shape == other.shape and np.array_equal(
            checkpoint.read(info).reshape(-1).view(np.uint8),
            original.read(other).reshape(-1).view(np.uint8),
        )
        equal += same
        if not same:
            changed.append(name)
    return equal, changed


def _is_smoothed(
    form: Format | None, checkpoint: Checkpoint, layers: Sequence[QuantizedLayer]
) -> bool:
    names: Mapping[str, bool] = form.algorithms(checkpoint) if form else {}
    declared = any(part in name.upper() for name in names for part in SMOOTHING)
    return declared or any(Role.PRE_QUANT_SCALE in layer.tensors for layer in layers)
