"""A model too large for memory: all batches go through one decoder layer, then through the next.

The model's own forward pass says what each layer is given: it is run once for each batch over
layers that only note how they are called, and once more at the end, from the last layer's result
on. So positions, masks, kinds of attention and what is done to the logits stay the model's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.backends import hf_weights
from gate.backends.hf_shelf import Shelf
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError
from gate.quantization import Format

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Call:
    """What a layer is called with, beside the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def sharing(self, other: "Call | None") -> "Call":
        """The same call, by the other's tensors where they are equal.

        Positions and masks are those of every batch of one shape: they are kept once.
        """
        if other is None:
            return self
        kwargs = {name: _shared(v, other.kwargs.get(name)) for name, v in self.kwargs.items()}
        return Call(_shared(self.args, other.args), kwargs)


@dataclass
class Notes:
    """How one batch's layers are called, and the hidden states that the first of them is given."""

    hidden: "torch.Tensor | None" = None
    calls: list[Call] = field(default_factory=list)


class _AllNoted(Exception):  # noqa: N818 - ends a forward pass whose rest is not wanted
    """Every layer's call was noted."""


class Streamed:
    """A checkpoint of which one decoder layer is in memory at a time.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        device: Where layers are computed.
        trust_remote_code: Whether the checkpoint's own Python may run.

    Attributes:
        model: Its weights are on the meta device; a module's are there while it runs.

    Raises:
        BackendUnavailableError: The model shows no list of decoder layers.
        CheckpointError: A weight is missing, superfluous or of another shape.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        form: Format | None,
        device: "torch.device",
        trust_remote_code: bool = False,
    ) -> None:
        self.checkpoint, self.device = checkpoint, device
        self.model = hf_weights.outline(checkpoint, form, device, trust_remote_code)
        self._weights = hf_weights.Weights(checkpoint, form, self.model, device)
        self._module_names = {module: name for name, module in self.model.named_modules()}
        self._layers = self._decoder_layers()
        self._load_others_on_demand()

    def logits(self, batches: Sequence[np.ndarray]) -> Iterator["torch.Tensor"]:
        """Each batch's logits in the model's dtype, bit by bit those of the whole model.

        Args:
            batches: int64, each of shape (batch, window).

        Yields:
            Shape (batch, window, vocabulary), in the order of the batches.

        Raises:
            BackendUnavailableError: Layers hand on more than hidden states.
            BackendError: A weight cannot be decoded.
        """
        with self._refusing(), Shelf() as shelf:
            with self._loaded(self.model.get_input_embeddings()):
                noted = self._noted(batches, shelf)
            for index, layer in enumerate(self._layers):
                with self._loaded(layer):
                    for batch, calls in enumerate(noted):
                        hidden = shelf.take(batch, self.device)
                        shelf.put(batch, self._run(layer, hidden, calls[index]))
            with self._loaded(self.model.get_output_embeddings()):
                for batch, ids in enumerate(batches):
                    yield self._head(ids, shelf.take(batch, self.device))

    def _noted(self, batches: Sequence[np.ndarray], shelf: Shelf) -> list[list[Call]]:
        """How every layer is called for every batch; the first's hidden states go to the shelf."""
        noted: list[list[Call]] = []
        for batch, ids in enumerate(batches):
            notes, known = Notes(), noted[-1] if noted else []
            stand_ins = self._for_each_layer(partial(self._note, notes, known))
            with suppress(_AllNoted), _standing_in(stand_ins):
                self._forward(ids)
            if notes.hidden is None or len(notes.calls) != len(self._layers):
                raise self._unstreamable("its forward pass does not run every decoder layer")
            shelf.put(batch, notes.hidden)
            noted.append(notes.calls)
        return noted

    def _note(
        self, notes: Notes, known: Sequence[Call], index: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Stands in for a layer: notes its call and hands its input on."""
        import torch

        hidden, *rest = args or (kwargs.pop("hidden_states", None),)
        if index == 0 and isinstance(hidden, torch.Tensor):
            notes.hidden = hidden.clone()
        if index != len(notes.calls) or not _identical(hidden, notes.hidden):
            raise self._unstreamable("something is done to the hidden states between its layers")
        call = Call(tuple(rest), kwargs)
        notes.calls.append(call.sharing(known[index] if known else None))
        if index == len(self._layers) - 1:
            raise _AllNoted
        return hidden

    def _run(self, layer: Any, hidden: "torch.Tensor", call: Call) -> "torch.Tensor":
        import torch

        with torch.inference_mode():
            found = layer(hidden, *call.args, **call.kwargs)
        if not isinstance(found, torch.Tensor) or found.shape != hidden.shape:
            raise self._unstreamable("its layers give more than hidden states")
        return found

    def _head(self, ids: np.ndarray, hidden: "torch.Tensor") -> "torch.Tensor":
        """What the model makes of the last layer's result."""
        last, embedding = len(self._layers) - 1, self.model.get_input_embeddings()

        def embed(ids: "torch.Tensor") -> "torch.Tensor":
            return hidden.new_zeros(*ids.shape, embedding.weight.shape[-1])

        def hand_on(index: int, *args: Any, **kwargs: Any) -> Any:
            return hidden if index == last else (*args, *kwargs.values())[0]

        with _standing_in({**self._for_each_layer(hand_on), embedding: embed}):
            found: torch.Tensor = self._forward(ids).logits
        return found

    def _forward(self, ids: np.ndarray) -> Any:
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(ids)).to(self.device)
            return self.model(input_ids=given, use_cache=False)

    def _for_each_layer(self, forward: Callable[..., Any]) -> dict[Any, Callable[..., Any]]:
        """Every layer to a function that is told its index."""
        return {layer: partial(forward, index) for index, layer in enumerate(self._layers)}

    def _decoder_layers(self) -> Sequence[Any]:
        """The text decoder's layers, in the order in which they run."""
        from torch.nn import ModuleList

        decoder = self.model.get_decoder()
        count = self.model.config.get_text_config().num_hidden_layers
        lists = {
            name: module
            for name, module in decoder.named_modules()
            if isinstance(module, ModuleList) and len(module) == count
        }
        # Experts of a layer may be as many, and stand in a list further inside.
        found = min(lists, key=lambda name: name.count("."), default=None)
        if found is None:
            raise self._unstreamable(f"{type(decoder).__name__} shows no list of {count} layers")
        return tuple(lists[found])

    def _load_others_on_demand(self) -> None:
        """Modules outside the layers, such as norms and projections, are loaded when called."""
        in_turn = {module for layer in self._layers for module in layer.modules()}
        in_turn.add(self.model.get_input_embeddings())
        for name, module in self.model.named_modules():
            own = self._weights.names(name, recurse=False)
            if own and module not in in_turn:
                module.register_forward_pre_hook(partial(self._before, own))

    def _before(self, own: Sequence[str], _: Any, args: tuple[Any, ...]) -> None:
        """A forward pre-hook that loads a module's own weights."""
        # To torch, indices without values are no error: they would find anything.
        if any(getattr(value, "is_meta", False) for value in args):
            raise self._unstreamable("it asks where weights lie before it calls their module")
        self._weights.load(own)

    @contextmanager
    def _loaded(self, module: Any) -> Iterator[None]:
        """A module's weights in memory, and others that are asked for; none afterwards."""
        try:
            self._weights.load(self._weights.names(self._module_names[module]))
            yield
        finally:
            self._weights.free()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What only a model in memory can do: use a weight without calling its module."""
        try:
            yield
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in str(error).lower():
                raise
            why = "it uses weights outside the modules that hold them"
            raise self._unstreamable(why) from error

    def _unstreamable(self, why: str) -> BackendUnavailableError:
        return hf_weights.unstreamable(self.checkpoint, why)


@contextmanager
def _standing_in(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Run these in place of modules' forward passes."""
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)


def _identical(value: Any, other: Any) -> bool:
    """Whether two tensors hold the same bytes; those of a broken model may be NaN."""
    import torch

    if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    ours, theirs = value.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    return value.dtype == other.dtype and torch.equal(ours, theirs)


def _shared(value: Any, other: Any) -> Any:
    """The other value where it holds the same tensors."""
    if type(value) is tuple and type(other) is tuple and len(value) == len(other):
        return tuple(map(_shared, value, other))
    return other if _identical(value, other) else value
