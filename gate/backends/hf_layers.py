"""The decoder layers of a model, run one at a time as the model itself would run them.

The model's own forward pass says what each layer is given: it is run over layers that only note how
they are called, and once more at the end, from the last layer's result on. So positions, masks,
kinds of attention and what is done to the logits stay the model's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.errors import GateError

if TYPE_CHECKING:
    import torch


Unsuited = Callable[[str], GateError]
"""Makes the error for a model that cannot be run so, given the reason."""


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


class Layers:
    """A model's text decoder, layer by layer.

    Args:
        model: Built by transformers; the weights need be there only where they are used.
        device: Where it computes.
        unsuited: See `Unsuited`.

    Attributes:
        modules: torch's list of the layers, in the order in which they run.

    Raises:
        GateError: The model shows no list of decoder layers.
    """

    def __init__(self, model: Any, device: "torch.device", unsuited: Unsuited) -> None:
        self.model, self.device, self._unsuited = model, device, unsuited
        self.modules = self._found()

    def __len__(self) -> int:
        return len(self.modules)

    def noted(self, ids: np.ndarray, known: Sequence[Call]) -> Notes:
        """How every layer is called for a batch, and what the first of them is given.

        Args:
            ids: int64, shape (batch, window).
            known: Those of another batch, whose tensors are shared where they are equal.

        Raises:
            GateError: Something is done to the hidden states between the layers.
        """
        import torch

        notes = Notes()
        stand_ins = self._for_each(partial(self._note, notes, known))
        with torch.no_grad(), suppress(_AllNoted), _standing_in(stand_ins):
            self._forward(ids)
        if notes.hidden is None or len(notes.calls) != len(self):
            raise self._unsuited("its forward pass does not run every decoder layer")
        return notes

    def run(self, index: int, hidden: "torch.Tensor", call: Call) -> "torch.Tensor":
        """One layer's result, of the shape of the hidden states that it is given."""
        import torch

        found = self.modules[index](hidden, *call.args, **call.kwargs)
        if not isinstance(found, torch.Tensor) or found.shape != hidden.shape:
            raise self._unsuited("its layers give more than hidden states")
        return found

    def head(self, ids: np.ndarray, hidden: "torch.Tensor") -> "torch.Tensor":
        """What the model makes of the last layer's result: shape (batch, window, vocabulary)."""
        last, embedding = len(self) - 1, self.model.get_input_embeddings()

        def embed(ids: "torch.Tensor") -> "torch.Tensor":
            return hidden.new_zeros(*ids.shape, embedding.weight.shape[-1])

        def hand_on(index: int, *args: Any, **kwargs: Any) -> Any:
            return hidden if index == last else (*args, *kwargs.values())[0]

        with _standing_in({**self._for_each(hand_on), embedding: embed}):
            found: torch.Tensor = self._forward(ids).logits
        return found

    def _note(
        self, notes: Notes, known: Sequence[Call], index: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Stands in for a layer: notes its call and hands its input on."""
        import torch

        hidden, *rest = args or (kwargs.pop("hidden_states", None),)
        if index == 0 and isinstance(hidden, torch.Tensor):
            notes.hidden = hidden.clone()
        if index != len(notes.calls) or not _identical(hidden, notes.hidden):
            raise self._unsuited("something is done to the hidden states between its layers")
        call = Call(tuple(rest), kwargs)
        notes.calls.append(call.sharing(known[index] if known else None))
        if index == len(self) - 1:
            raise _AllNoted
        return hidden

    def _forward(self, ids: np.ndarray) -> Any:
        import torch

        given = torch.from_numpy(np.ascontiguousarray(ids)).to(self.device)
        return self.model(input_ids=given, use_cache=False)

    def _for_each(self, forward: Callable[..., Any]) -> dict[Any, Callable[..., Any]]:
        """Every layer to a function that is told its index."""
        return {layer: partial(forward, index) for index, layer in enumerate(self.modules)}

    def _found(self) -> Any:
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
            raise self._unsuited(f"{type(decoder).__name__} shows no list of {count} layers")
        return lists[found]


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
