"""Which devices hold a model, and what it looks like when memory runs out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gate.checkpoint import Checkpoint
from gate.errors import OutOfMemoryError
from gate.quantization import Format

HEADROOM = 1.2
"""Device memory per byte of weights: activations and the KV cache need the rest."""


def placement(
    checkpoint: Checkpoint, form: Format | None, bytes_per_parameter: int
) -> dict[str, Any]:
    """Where the weights go: the fewest CUDA devices, emptiest first; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    from gate.size import decoded_bytes

    free = {i: torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
    chosen = fewest_devices(
        free, int(HEADROOM * decoded_bytes(checkpoint, form, bytes_per_parameter))
    )
    if len(chosen) == 1:
        return {"device_map": {"": next(iter(chosen))}}
    return {"device_map": "auto", "max_memory": chosen}


def fewest_devices(free: Mapping[int, int], needed: int) -> dict[int, int]:
    """The fewest devices that hold `needed` bytes together, with their free bytes.

    Args:
        free: Device to its free bytes.
        needed: Bytes.

    Raises:
        OutOfMemoryError: All together do not.
    """
    chosen: dict[int, int] = {}
    for device in sorted(free, key=lambda device: (-free[device], device)):
        chosen[device] = free[device]
        if sum(chosen.values()) >= needed:
            return chosen
    raise OutOfMemoryError(
        f"the decoded model needs {needed / 2**30:.1f} GiB; all {len(free)} devices together "
        f"have {sum(free.values()) / 2**30:.1f} GiB free",
        "Use more or larger devices, or set CUDA_VISIBLE_DEVICES= to run on the CPU.",
    )


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
