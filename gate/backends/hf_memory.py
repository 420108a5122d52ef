"""Which devices hold a model, and what it looks like when memory runs out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gate.checkpoint import Checkpoint
from gate.errors import OutOfMemoryError
from gate.quantization import Format

HEADROOM = 1.2
"""Device memory per byte of weights: activations and the KV cache need the rest."""


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
