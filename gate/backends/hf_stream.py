"""A model too large for memory: all batches go through one decoder layer, then through the next."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.backends import hf_weights
from gate.backends.hf_layers import Call, Layers, Unsuited
from gate.backends.hf_shelf import Shelf
from gate.checkpoint import Checkpoint
from gate.quantization import Format

if TYPE_CHECKING:
    import torch

Seen = Callable[[int, int, "torch.Tensor"], None]
"""Called with (layer, batch, hidden states)."""


class Streamed:
    """A checkpoint of which one decoder layer is in memory at a time.

    Args:
        checkpoint: What to run.
        form: How its quantized weights are stored; None for an unquantized checkpoint.
        device: Where layers are computed.
        trust_remote_code: Whether the checkpoint's own Python may run.
        dtype: In which it computes; None for its own.
        unsuited: Makes the error for a model that cannot be run layer by layer, given the reason.

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
        dtype: "torch.dtype | None" = None,
        unsuited: Unsuited | None = None,
    ) -> None:
        self.device = device
        self._unstreamable = unsuited or partial(hf_weights.unstreamable, checkpoint)
        self.model = hf_weights.outline(checkpoint, form, device, trust_remote_code, dtype)
        self._weights = hf_weights.Weights(checkpoint, form, self.model, device)
        self._module_names = {module: name for name, module in self.model.named_modules()}
        self._layers = Layers(self.model, device, self._unstreamable)
        self._load_others_on_demand()

    def logits(
        self, batches: Sequence[np.ndarray], seen: Seen | None = None
    ) -> Iterator["torch.Tensor"]:
        """Each batch's logits in the model's dtype, bit by bit those of the whole model.

        Args:
            batches: int64, each of shape (batch, window).
            seen: Told what every layer makes of every batch.

        Yields:
            Shape (batch, window, vocabulary), in the order of the batches.

        Raises:
            BackendUnavailableError: Layers hand on more than hidden states.
            BackendError: A weight cannot be decoded.
        """
        import torch

        with self._refusing(), Shelf() as shelf:
            with self._loaded(self.model.get_input_embeddings()):
                noted = self._noted(batches, shelf)
            for index, layer in enumerate(self._layers.modules):
                with self._loaded(layer), torch.inference_mode():
                    for batch, calls in enumerate(noted):
                        hidden = shelf.take(batch, self.device)
                        hidden = self._layers.run(index, hidden, calls[index])
                        shelf.put(batch, hidden)
                        if seen:
                            seen(index, batch, hidden)
            with self._loaded(self.model.get_output_embeddings()):
                for batch, ids in enumerate(batches):
                    with torch.inference_mode():
                        logits = self._layers.head(ids, shelf.take(batch, self.device))
                    yield logits

    @contextmanager
    def lent(self, modules: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Modules by name with their weights in memory, for use in another model meanwhile.

        Raises:
            BackendError: A weight cannot be decoded.
        """
        try:
            found = {name: self.model.get_submodule(name) for name in modules}
            for name in found:
                self._weights.load(self._weights.names(name))
            yield found
        finally:
            self._weights.free()

    def stored_bytes(self, parameter: str) -> int:
        """What a parameter takes in the checkpoint; 0 for one that is another's by tying."""
        return self._weights.stored_bytes(parameter)

    def _noted(self, batches: Sequence[np.ndarray], shelf: Shelf) -> list[list[Call]]:
        """How every layer is called for every batch; the first's hidden states go to the shelf."""
        noted: list[list[Call]] = []
        for batch, ids in enumerate(batches):
            notes = self._layers.noted(ids, noted[-1] if noted else [])
            assert notes.hidden is not None, "every layer was called"
            shelf.put(batch, notes.hidden)
            noted.append(notes.calls)
        return noted

    def _load_others_on_demand(self) -> None:
        """Modules outside the layers, such as norms and projections, are loaded when called."""
        in_turn = {module for layer in self._layers.modules for module in layer.modules()}
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
