"""A checkpoint as a transformers model, its quantized weights decoded while it loads.

transformers' own loading does the renaming, the fusing of experts, the tying and the placement;
it is given slices that decode when they are indexed.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gate import ggml
from gate.backends import hf_class, hf_gguf, hf_memory
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
    offload: bool = False,
    progress: LoadProgress | None = None,
) -> Any:
    """The model of a checkpoint in the dtype of its configuration, in evaluation mode.

    Args:
        checkpoint: What to load.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        reserve: Asked for CUDA devices, where there are any.
        trust_remote_code: Whether the checkpoint's own Python may run.
        offload: Whether the host's memory takes what CUDA devices do not hold.
        progress: Told after every tensor.

    Raises:
        BackendUnavailableError: transformers lacks the architecture, or the devices the room.
        CheckpointError: A weight is missing, superfluous or of another shape.
        OutOfMemoryError: Memory ran out while they were loaded.
    """
    with quiet():
        config = hf_class.config(checkpoint, trust_remote_code)
        model_class = hf_class.model_class(checkpoint, config, trust_remote_code)
        dtype = hf_class.dtype(checkpoint, config)
        outline = partial(_outline, model_class, config)
        placed = hf_memory.placement(checkpoint, form, dtype, outline, reserve, offload=offload)
        # Sizes that do not fit are reported below, with all else.
        options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        options |= {"config": config, **placed}
        failures: list[Exception] = []
        try:
            if form is None:
                path, where = checkpoint.path, {"use_safetensors": True, "local_files_only": True}
                model, info = model_class.from_pretrained(path, dtype="auto", **where, **options)
            else:
                parameters = hf_gguf.parameters(checkpoint, form, model_class, config)
                tensors = lazy_tensors(checkpoint, form, dtype, progress, failures, parameters)
                options |= {"state_dict": tensors, "dtype": dtype}
                model, info = model_class.from_pretrained(None, **options)
                model.name_or_path = model.config.name_or_path = str(checkpoint.path)
                model.generation_config = _generation_config(checkpoint)
        except (MemoryError, *hf_class.MALFORMED) as error:
            # transformers notes only the text of what went wrong while it converted.
            raise load_error(checkpoint, failures[0] if failures else error) from error
    require_complete(checkpoint, model_class.__name__, info)
    return model


def _outline(model_class: Any, config: Any) -> Any:
    """The model's modules without their weights."""
    import torch

    with torch.device("meta"):
        return model_class(config)


def load_error(checkpoint: Checkpoint, cause: Exception) -> GateError:
    """What to raise for an exception that ended the loading."""
    if isinstance(cause, GateError):
        return cause
    return hf_memory.out_of_memory(cause, "loading the weights") or BackendError(
        f"transformers cannot load {checkpoint.source}: {cause}",
        "Validate the checkpoint first: gate lint " + checkpoint.source,
    )


class LazyTensor:
    """What transformers takes for a slice of a file: read and decoded when it is indexed.

    Attributes:
        nbytes: Of what is stored.
    """

    def __init__(self, read: "Callable[[], torch.Tensor]", nbytes: int) -> None:
        self._read, self.nbytes = read, nbytes

    def __getitem__(self, index: Any) -> "torch.Tensor":
        return self._read()[index]


def lazy_tensors(
    checkpoint: Checkpoint,
    form: Format | None,
    dtype: "torch.dtype",
    progress: LoadProgress | None,
    failures: list[Exception],
    parameters: hf_gguf.Parameters | None = None,
) -> dict[str, LazyTensor]:
    """Parameter name to slice, companions of quantized weights left out.

    What goes wrong while reading is added to `failures`; `parameters` are those of a GGUF file.

    Raises:
        CheckpointError: Two tensors are the same parameter.
    """
    if parameters is None:
        sources = _sources(checkpoint, form, dtype)
    else:
        sources = {
            name: (partial(parameters.read, name, dtype), parameters.nbytes(name))
            for name in parameters.shapes
        }
    lock = threading.Lock()
    done = 0

    def read(decoded: "Callable[[], torch.Tensor]") -> "torch.Tensor":
        nonlocal done
        # transformers reads with several threads: the lock keeps one float32 tensor in memory.
        with lock:
            try:
                tensor = decoded()
            except Exception as error:
                failures.append(error)
                raise
            done += 1
            if progress:
                progress(done, len(sources))
        return tensor

    return {
        name: LazyTensor(partial(read, decoded), nbytes)
        for name, (decoded, nbytes) in sources.items()
    }


def _sources(
    checkpoint: Checkpoint, form: Format | None, dtype: "torch.dtype"
) -> "dict[str, tuple[Callable[[], torch.Tensor], int]]":
    """Parameter name to what reads and decodes it, and to the bytes that are stored of it."""
    layers = {
        layer.tensors[Role.WEIGHT].name: layer for layer in quantized_layers(checkpoint, form)
    }

    def decoded(info: TensorInfo) -> "torch.Tensor":
        import torch

        layer = layers.get(info.name)
        if form is None or layer is None:
            return _stored(checkpoint, info)
        tensor = torch.from_numpy(form.dequantize(layer, np)).to(dtype)
        return tensor.mT.contiguous() if layer.transposed else tensor

    found: dict[str, tuple[Callable[[], torch.Tensor], int]] = {}
    for info in weights(checkpoint, form):
        name = layers[info.name].parameter if info.name in layers else info.name
        if name in found:
            raise CheckpointError(
                f"{checkpoint.source} holds {name} twice, once as {info.name}",
                "Export the checkpoint again into an empty directory.",
            )
        found[name] = (partial(decoded, info), info.nbytes)
    return found


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


def _generation_config(checkpoint: Checkpoint) -> Any:
    """What transformers generates by when it loads from the directory itself."""
    from transformers import GenerationConfig

    path = checkpoint.path
    if checkpoint.whole_file is not None:
        return GenerationConfig(eos_token_id=list(ggml.end_tokens(checkpoint.metadata)) or None)
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
