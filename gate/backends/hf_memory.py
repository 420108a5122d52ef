"""Which devices hold a model, and what it looks like when memory runs out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gate.architecture import Architecture
from gate.checkpoint import Checkpoint
from gate.errors import OutOfMemoryError
from gate.fit.memory import COMPUTED_BYTES, kv_values
from gate.quantization import Format

if TYPE_CHECKING:
    import torch

HEADROOM = 1.2
"""Device memory per byte of weights: activations and the KV cache need the rest."""


ON_CPU = 8
"""Documents together on a CPU: more save little there."""

MOST = 256
"""Documents together at most: beyond, a device computes no faster."""

FILLED = 0.8
"""Share of the free memory that is counted on."""

ACTIVATIONS = 8
"""Tensors of the width of a layer and of its MLP that are alive at once, at most."""


Reserve = Callable[[int], Mapping[int, int]]
"""From bytes to the CUDA devices that hold them, each with its free bytes."""


def placement(
    checkpoint: Checkpoint, form: Format | None, bytes_per_parameter: int, reserve: Reserve
) -> dict[str, Any]:
    """Where the weights go: the CUDA devices that are reserved for them; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    from gate.size import decoded_bytes

    chosen = reserve(int(HEADROOM * decoded_bytes(checkpoint, form, bytes_per_parameter)))
    if len(chosen) == 1:
        return {"device_map": {"": next(iter(chosen))}}
    return {"device_map": "auto", "max_memory": chosen}


def device(checkpoint: Checkpoint, form: Format | None, reserve: Reserve) -> "torch.device":
    """Where a model is streamed through: a CUDA device that is reserved for it; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    from gate.size import part_bytes, workspace_bytes

    largest = part_bytes(checkpoint, form)
    return torch.device("cuda", next(iter(reserve(largest + workspace_bytes(largest)))))


def free_beside(model: Any) -> int:
    """Free bytes of the CUDA devices that hold a loaded model."""
    import torch

    found = {parameter.device for parameter in model.parameters()}
    return sum(int(torch.cuda.mem_get_info(place)[0]) for place in found if place.type == "cuda")


def fitting(figures: Architecture, tokens: int, free_bytes: int, *, all_logits: bool) -> int:
    """How many documents fit together: a power of two, by arithmetic.

    Args:
        figures: Of the model.
        tokens: Of the longest document and its answer.
        free_bytes: Of the devices that hold the model.
        all_logits: Whether those of every token are computed, as for multiple choice.
    """
    cached = kv_values(figures, tokens)
    width, vocabulary = figures.hidden, figures.vocabulary
    if not cached or not width or not vocabulary:
        return ON_CPU
    mlp = figures.number("intermediate_size", "moe_intermediate_size") or 4 * width
    # While a cache is enlarged, it is there twice; logits are there in two dtypes.
    values = 2 * cached + tokens * ACTIVATIONS * (width + mlp)
    values += 3 * vocabulary * (tokens if all_logits else 1)
    fits = int(FILLED * free_bytes) // (COMPUTED_BYTES * values)
    return 1 << (min(max(fits, 1), MOST).bit_length() - 1)


def out_of_memory(error: BaseException, what: str) -> OutOfMemoryError | None:
    """The error as ours if it means that memory ran out; else None."""
    import torch

    text = str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "alloc" in text and "memory" in text
    ):
        first = text.splitlines()[0] if text else type(error).__name__
        return OutOfMemoryError(
            f"memory ran out while {what}: {first}",
            "Lower batch_size, max_gen_toks or the perplexity window, or use a larger device.",
        )
    return None


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Memory that ran out becomes our own error."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        ours = out_of_memory(error, what)
        if ours is None:
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise ours from error
