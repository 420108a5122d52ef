"""A checkpoint as a transformers model, its quantized weights decoded while it loads.

transformers' own loading does the renaming, the fusing of experts, the tying and the placement;
it is given slices that decode when they are indexed.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.backends import hf_class, hf_memory
from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import (
    BackendError,
    CheckpointError,
    GateError,
)
from gate.quantization import Format, QuantizedLayer, Role

if TYPE_CHECKING:
    import torch

LoadProgress = Callable[[int, int], None]
"""Called with (tensors read, tensors in all)."""

NAMED = 5
"""Tensors named in a message."""


def quantized_layers(checkpoint: Checkpoint, form: Format | None) -> tuple[QuantizedLayer, ...]:
    """The layers whose stored weight is quantized."""
    return tuple(layer for layer in form.layers(checkpoint) if layer.packed) if form else ()


def weights(checkpoint: Checkpoint, form: Format | None) -> tuple[TensorInfo, ...]:
    """What a model takes: every tensor but the companions of quantized weights."""
    return tuple(
        info
        for name, info in checkpoint.tensors.items()
        if form is None or not form.is_companion(name)
    )


def load(
    checkpoint: Checkpoint,
    form: Format | None,
    *,
    reserve: hf_memory.Reserve,
    trust_remote_code: bool = False,
    progress: LoadProgress | None = None,
) -> Any:
    """The model of a checkpoint in the dtype of its configuration, in evaluation mode.

    Args:
        checkpoint: What to load.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        reserve: Asked for CUDA devices, where there are any.
        trust_remote_code: Whether the checkpoint's own Python may run.
        progress: Told after every tensor.

    Raises:
        BackendUnavailableError: The installed transformers lacks the architecture.
        CheckpointError: A weight is missing, superfluous or of another shape.
        OutOfMemoryError: Memory ran out while they were loaded.
    """
    with quiet():
        config = hf_class.config(checkpoint, trust_remote_code)
        model_class = hf_class.model_class(checkpoint, config, trust_remote_code)
        dtype = hf_class.dtype(checkpoint, config)
        options: dict[str, Any] = {
            "config": config,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # they are reported below, with all others
            **hf_memory.placement(checkpoint, form, dtype.itemsize, reserve),
        }
        failures: list[Exception] = []
        try:
            if form is None:
                path, where = checkpoint.path, {"use_safetensors": True, "local_files_only": True}
                model, info = model_class.from_pretrained(path, dtype="auto", **where, **options)
            else:
                tensors = lazy_tensors(checkpoint, form, dtype, progress, failures)
                model, info = model_class.from_pretrained(
                    None, state_dict=tensors, dtype=dtype, **options
                )
                model.name_or_path = model.config.name_or_path = str(checkpoint.path)
                model.generation_config = _generation_config(checkpoint.path)
        except (MemoryError, *hf_class.MALFORMED) as error:
            # transformers notes only the text of what went wrong while it converted.
            raise load_error(checkpoint, failures[0] if failures else error) from error
    require_complete(checkpoint, model_class.__name__, info)
    return model


def load_error(checkpoint: Checkpoint, cause: Exception) -> GateError:
    """What to raise for an exception that ended the loading."""
    if isinstance(cause, GateError):
        return cause
    return hf_memory.out_of_memory(cause, "loading the weights") or BackendError(
        f"transformers cannot load {checkpoint.source}: {cause}",
        "Validate the checkpoint first: gate lint " + checkpoint.source,
    )


class LazyTensor:
    """What transformers takes for a slice of a file: read and decoded when it is indexed."""

    def __init__(self, read: "Callable[[], torch.Tensor]") -> None:
        self._read = read

    def __getitem__(self, index: Any) -> "torch.Tensor":
        return self._read()[index]


def lazy_tensors(
    checkpoint: Checkpoint,
    form: Format | None,
    dtype: "torch.dtype",
    progress: LoadProgress | None,
    failures: list[Exception],
) -> dict[str, LazyTensor]:
    """Parameter name to slice, companions of quantized weights left out.

    What goes wrong while reading is added to `failures`.
    """
    import torch

    layers = {
        layer.tensors[Role.WEIGHT].name: layer for layer in quantized_layers(checkpoint, form)
    }
    stored = weights(checkpoint, form)
    lock = threading.Lock()
    done = 0

    def read(info: TensorInfo) -> "torch.Tensor":
        nonlocal done
        # transformers reads with several threads: the lock keeps one float32 tensor in memory.
        with lock:
            layer = layers.get(info.name)
            try:
                if form is None or layer is None:
                    tensor = _stored(checkpoint, info)
                else:
                    tensor = torch.from_numpy(form.dequantize(layer, np)).to(dtype)
            except Exception as error:
                failures.append(error)
                raise
            done += 1
            if progress:
                progress(done, len(stored))
        return tensor

    return {info.name: LazyTensor(partial(read, info)) for info in stored}


def _stored(checkpoint: Checkpoint, info: TensorInfo) -> "torch.Tensor":
    """A tensor that is no quantized weight, in its own dtype."""
    import torch

    if info.dtype not in hf_class.TORCH_DTYPES:
        raise CheckpointError(
            f"{info.name} is stored as {info.dtype} and belongs to no quantized layer",
            "Validate the checkpoint first: gate lint " + checkpoint.source,
        )
    # A mapped file is read-only; the model must own its weights.
    raw = np.array(checkpoint.read(info))
    return torch.from_numpy(raw).view(getattr(torch, hf_class.TORCH_DTYPES[info.dtype]))


def _generation_config(path: Path) -> Any:
    """What transformers generates by when it loads from the directory itself."""
    from transformers import GenerationConfig

    if (path / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    return GenerationConfig.from_pretrained(
        path, config_file_name="config.json", local_files_only=True, _from_model_config=True
    )


def require_complete(checkpoint: Checkpoint, model_class: str, info: Mapping[str, Any]) -> None:
    """No weight of the model was made up, none of the checkpoint's was dropped.

    Raises:
        CheckpointError: Naming the tensors.
    """
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    for what, names in (
        ("lacks", info["missing_keys"]),
        ("holds in another shape than the model", mismatched),
        ("holds beyond what the model has", info["unexpected_keys"]),
    ):
        if names:
            raise CheckpointError(
                f"{checkpoint.source} {what}: {_listed(sorted(names))} ({model_class})",
                "Export the checkpoint again, or mend architectures in config.json.",
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of transformers."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
