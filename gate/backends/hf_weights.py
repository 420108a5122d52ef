"""A model that is built without its weights, and the weights of one part of it at a time."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from gate.backends import hf_class, hf_gguf, hf_model
from gate.backends.hf_names import Names
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError, GateError
from gate.quantization import Format, Role

if TYPE_CHECKING:
    import torch


def outline(
    checkpoint: Checkpoint,
    form: Format | None,
    device: "torch.device",
    trust_remote_code: bool,
    dtype: "torch.dtype | None" = None,
) -> Any:
    """The model on the meta device, in evaluation mode: all modules, no weights.

    transformers loads it from shapes without values, so that it renames, fuses, ties and reports
    as it does with the values themselves. Buffers that no file holds, such as the frequencies of
    rotary embeddings, are computed.

    Args:
        checkpoint: Whose headers are read.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        device: Where the buffers lie.
        trust_remote_code: Whether the checkpoint's own Python may run.
        dtype: In which it computes; None for its own.

    Raises:
        BackendUnavailableError: The installed transformers lacks the architecture.
        CheckpointError: A weight is missing, superfluous or of another shape.
    """
    with hf_model.quiet():
        config = hf_class.config(checkpoint, trust_remote_code)
        model_class = hf_class.model_class(checkpoint, config, trust_remote_code)
        dtype = dtype or hf_class.dtype(checkpoint, config)
        parameters = hf_gguf.parameters(checkpoint, form, model_class, config)
        shapes = _shapes(checkpoint, form, dtype, parameters)
        try:
            model, info = model_class.from_pretrained(
                None,
                state_dict=shapes,
                config=config,
                dtype=dtype,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except hf_class.MALFORMED as error:
            raise hf_model.load_error(checkpoint, error) from error
    hf_model.require_complete(checkpoint, model_class.__name__, info)
    _compute_buffers(model, device)
    return model


def _shapes(
    checkpoint: Checkpoint,
    form: Format | None,
    dtype: "torch.dtype",
    parameters: hf_gguf.Parameters | None,
) -> dict[str, "torch.Tensor"]:
    """Name to a tensor on the meta device, as it will be once it is decoded."""
    import torch

    if parameters is not None:
        return {
            name: torch.empty(shape, dtype=dtype, device="meta")
            for name, shape in parameters.shapes.items()
        }
    quantized = {
        layer.tensors[Role.WEIGHT].name: layer
        for layer in hf_model.quantized_layers(checkpoint, form)
    }
    shapes = {}
    for info in hf_model.weights(checkpoint, form):
        layer = quantized.get(info.name)
        if layer is None:
            stored = getattr(torch, hf_class.TORCH_DTYPES.get(info.dtype, "uint8"))
            shapes[info.name] = torch.empty(info.shape, dtype=stored, device="meta")
        elif layer.shape is None:
            raise unstreamable(checkpoint, f"the shape of {layer.name} is not in its header")
        else:
            decoded = torch.empty(layer.shape, dtype=dtype, device="meta")
            shapes[layer.parameter] = decoded.mT if layer.transposed else decoded
    return shapes


def unstreamable(checkpoint: Checkpoint, why: str) -> BackendUnavailableError:
    """The error for a model that must be in memory as a whole."""
    return BackendUnavailableError(
        f"{checkpoint.source} cannot be streamed layer by layer: {why}",
        "Run on a machine whose memory holds the whole model, with memory: resident.",
    )


def _compute_buffers(model: Any, device: "torch.device") -> None:
    """Give buffers that are not stored their values, as loading the whole model does."""
    import torch

    for name, buffer in list(model.named_non_persistent_buffers()):
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        module._buffers[leaf] = torch.empty_like(buffer, device=device)
        module._is_hf_initialized = False
    # Parameters are marked as initialized already: only these buffers are computed.
    model.initialize_weights()


class Weights:
    """The weights of a model that has none: decoded into it, and taken out again.

    Args:
        checkpoint: Where they are stored.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        model: From `outline`.
        device: Where they are put.
    """

    def __init__(
        self, checkpoint: Checkpoint, form: Format | None, model: Any, device: "torch.device"
    ) -> None:
        from transformers.core_model_loading import dot_natural_key

        self._checkpoint, self._model, self._device = checkpoint, model, device
        parameters = hf_gguf.parameters(checkpoint, form, type(model), model.config)
        self._tensors = hf_model.lazy_tensors(checkpoint, form, model.dtype, None, [], parameters)
        self._meta: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        # A tied parameter is one object under several names, of which one is stored.
        self._aliases: dict[int, list[str]] = defaultdict(list)
        for name, tensor in self._meta.items():
            self._aliases[id(tensor)].append(name)
        self._names = Names(model)
        self._sources: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        for stored in sorted(self._tensors, key=dot_natural_key):
            parameter, pattern = self._names.parameter(stored)
            if parameter is not None:
                self._sources[parameter].append((stored, pattern))
        self._loaded: set[str] = set()

    def names(self, module: str, recurse: bool = True) -> tuple[str, ...]:
        """The parameters and stored buffers of a module, those of its children included or not."""
        start = f"{module}." if module else ""
        return tuple(
            name
            for name in self._meta
            if name.startswith(start) and (recurse or "." not in name[len(start) :])
        )

    def stored_bytes(self, parameter: str) -> int:
        """What a parameter takes in the files; 0 for one that is another's by tying."""
        return sum(self._tensors[name].nbytes for name, _ in self._sources.get(parameter, ()))

    def load(self, names: Iterable[str]) -> None:
        """Decode these into the model, unless they are there.

        Raises:
            BackendError: A weight cannot be decoded.
            OutOfMemoryError: Memory ran out.
        """
        for name in names:
            if name in self._loaded:
                continue
            stored = next(alias for alias in self._alike(name) if alias in self._sources)
            try:
                decoded = self._decoded(stored)
            except (GateError, MemoryError, *hf_class.MALFORMED) as error:
                raise hf_model.load_error(self._checkpoint, error) from error
            for target, tensor in decoded.items():
                for alias in self._alike(target):
                    self._put(alias, tensor)
                    self._loaded.add(alias)

    def free(self) -> None:
        """Take every weight out of the model."""
        for name in self._loaded:
            self._put(name, self._meta[name])
        self._loaded.clear()

    def _alike(self, name: str) -> list[str]:
        return self._aliases[id(self._meta[name])]

    def _put(self, name: str, tensor: "torch.Tensor") -> None:
        parent, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(parent)
        held = module._buffers if leaf in module._buffers else module._parameters
        held[leaf] = tensor

    def _decoded(self, name: str) -> dict[str, "torch.Tensor"]:
        """A parameter's values, and those of parameters that are stored together with it."""
        import torch

        sources = self._sources[name]
        (stored, pattern), *_ = sources
        if pattern is None:
            values = {name: self._read(stored, self._meta[name].dtype)}
        else:
            values = self._converted(name, sources)
        return {
            target: torch.nn.Parameter(tensor, requires_grad=False)
            if isinstance(self._meta[target], torch.nn.Parameter)
            else tensor
            for target, tensor in values.items()
        }

    def _read(self, stored: str, dtype: "torch.dtype") -> "torch.Tensor":
        return self._tensors[stored][...].to(self._device, dtype)

    def _converted(
        self, name: str, sources: list[tuple[str, str | None]]
    ) -> dict[str, "torch.Tensor"]:
        """What transformers makes of several tensors, one expert after another where it stacks."""
        import torch
        from transformers.core_model_loading import MergeModulelist

        meta = self._meta[name]
        by_pattern: dict[str, list[Callable[[], torch.Tensor]]] = defaultdict(list)
        for stored, pattern in sources:
            assert pattern is not None, "one converter makes all of a parameter"
            by_pattern[pattern].append(partial(self._read, stored, meta.dtype))
        converter = self._names.converters[next(iter(by_pattern))]
        counts = {len(found) for found in by_pattern.values()}
        stacked = isinstance(converter.operations[0], MergeModulelist)
        if not stacked or counts != {meta.shape[0]}:
            return self._convert(converter, name, by_pattern)
        whole = torch.empty_like(meta, device=self._device)
        for expert in range(len(whole)):
            one = {pattern: [found[expert]] for pattern, found in by_pattern.items()}
            (made,) = self._convert(converter, name, one).values()
            whole[expert : expert + 1] = made
        return {name: whole}

    def _convert(
        self,
        converter: Any,
        name: str,
        by_pattern: Mapping[str, list[Callable[[], "torch.Tensor"]]],
    ) -> dict[str, "torch.Tensor"]:
        fresh = deepcopy(converter)
        for pattern, found in by_pattern.items():
            for read in found:
                fresh.add_tensor(name, name, pattern, read)
        made = fresh.convert(name, model=self._model, config=self._model.config)
        return {key: value[0] if isinstance(value, list) else value for key, value in made.items()}
