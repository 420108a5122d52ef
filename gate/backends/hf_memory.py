"""Which devices hold a model, and what it looks like when memory runs out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gate.architecture import Architecture
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError, OutOfMemoryError
from gate.fit.memory import COMPUTED_BYTES, kv_values
from gate.quantization import Format

if TYPE_CHECKING:
    import torch

OFFLOAD = "let the host's memory hold the rest, which is slow: memory: offload"

NAMED = 3
"""Modules named in a message."""

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
    checkpoint: Checkpoint,
    form: Format | None,
    dtype: "torch.dtype",
    outline: Callable[[], Any],
    reserve: Reserve,
    *,
    offload: bool = False,
) -> dict[str, Any]:
    """Where decoded weights go: the CUDA devices that are reserved for them; else the CPU.

    Args:
        dtype: Of the decoded weights.
        outline: Makes the model on the meta device; asked where one device does not hold it.
        reserve: See `Reserve`.
        offload: Whether the host's memory takes what the devices do not hold.

    Raises:
        BackendUnavailableError: Modules of the model find no place.
    """
    import psutil
    import torch

    from gate.size import decoded_bytes

    if not torch.cuda.is_available():
        return {}
    needed = int(HEADROOM * decoded_bytes(checkpoint, form, dtype.itemsize))
    chosen = reserve(needed)
    fits = sum(chosen.values()) >= needed
    if len(chosen) == 1 and fits:
        return {"device_map": {"": next(iter(chosen))}}
    host = int(FILLED * psutil.virtual_memory().available) if offload and not fits else None
    return {"device_map": divided(outline(), chosen, dtype, host)}


def divided(
    model: Any, room: Mapping[int, int], dtype: "torch.dtype", host_bytes: int | None = None
) -> dict[str, int | str]:
    """Which device holds which modules of a model that takes more than one.

    Args:
        model: On the meta device.
        room: CUDA devices, each with its free bytes.
        dtype: Of the weights.
        host_bytes: What the host's memory may take; None for nothing.

    Returns:
        Module's name to the index of its device, or to "cpu".

    Raises:
        BackendUnavailableError: Modules find no place, with their bytes.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = model._no_split_modules
    whole = None if whole is None else sorted(whole)
    model.tie_weights()
    if host_bytes is None:
        # As full as each other: what is computed beside the weights takes room on all of them.
        limits = get_balanced_memory(model, dict(room), whole, dtype)
    else:
        limits = {index: int(free / HEADROOM) for index, free in room.items()}
        limits["cpu"] = host_bytes
    found = infer_auto_device_map(model, limits, whole, dtype)
    outside = [name for name, place in found.items() if place not in limits]
    if outside:
        held = {parameter for name in outside for parameter in _below(model, name)}
        count = sum(parameter.numel() for parameter in held) * dtype.itemsize
        named = ", ".join(outside[:NAMED]) + (", ..." if len(outside) > NAMED else "")
        where = "the GPUs" if host_bytes is None else "the GPUs and the host's memory"
        raise BackendUnavailableError(
            f"{count / 2**30:.1f} GiB of the model ({named}) find no room on {where}: "
            f"{', '.join(f'{free / 2**30:.1f} GiB free on GPU {i}' for i, free in room.items())}, "
            "and a layer lies on one device",
            "Use more or larger GPUs" + ("" if host_bytes is not None else f", or {OFFLOAD}") + ".",
        )
    return dict(found)


def offloaded(model: Any) -> str:
    """What a kernel's name says of a model of which the host's memory holds a part."""
    part = "cpu" in getattr(model, "hf_device_map", {}).values()
    return "; weights partly in the host's memory" if part else ""


def _below(model: Any, name: str) -> "Iterator[torch.Tensor]":
    """The parameters of a module, or the one of that name."""
    for parameter, value in model.named_parameters(remove_duplicate=False):
        if not name or parameter == name or parameter.startswith(f"{name}."):
            yield value


def on_devices(weights: int, reserve: Reserve) -> dict[str, Any]:
    """The CUDA devices that are reserved for so many bytes of weights; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return {}
    chosen = reserve(int(HEADROOM * weights))
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
