"""The candidate run from any decoder layer on, with modules of the reference in their place."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gate import terminal
from gate.backends.hf_layers import Call, Layers
from gate.backends.hf_shelf import Shelf
from gate.backends.hf_stream import Streamed
from gate.diagnosis.suspects import Suspect
from gate.diagnosis.targets import Distance, Targets
from gate.errors import NonFiniteLogitsError
from gate.evaluate import Progress

if TYPE_CHECKING:
    from torch import Tensor


class Passes:
    """One candidate, its windows, and what every one of its layers is given on them.

    In memory: the candidate, one layer's modules of the reference or those of the set that is put
    back, and one batch; what the layers are given lies on a shelf.

    Args:
        layers: Of the candidate.
        original: The reference.
        batches: Token ids: int64, each of shape (windows, window).
        shelf: Where hidden states are kept.
        progress: Told of every layer and batch.

    Attributes:
        targets: The reference's distributions, one entry a batch.
        hidden_errors: Mean over the tokens of the relative error behind each layer; see
            `LayerDamage`.
        base: How far the candidate is from the reference.
    """

    def __init__(
        self,
        layers: Layers,
        original: Streamed,
        batches: Sequence[np.ndarray],
        shelf: Shelf,
        progress: Progress = terminal.silent,
    ) -> None:
        self.layers, self.original, self.batches = layers, original, batches
        self._shelf = shelf
        self._names = {module: name for name, module in layers.model.named_modules()}
        self._calls: list[list[Call]] = []
        with progress("reading the reference", self.steps) as advance:
            self.targets = self._read_reference(advance)
        with progress("reading the checkpoint", self.steps) as advance:
            self.hidden_errors = self._read_candidate(advance)
        self.base = self.measured(())
        if not np.isfinite(self.base.divergence).all():
            raise _not_finite(self._names[layers.model.get_output_embeddings()])

    @property
    def steps(self) -> int:
        """Layers times batches."""
        return len(self.layers) * len(self.batches)

    def measured(self, suspects: Iterable[Suspect]) -> Distance:
        """How far the candidate is when these are put back to the reference."""
        import torch

        chosen = tuple(suspects)
        names = [name for suspect in chosen for name in suspect.modules]
        begin = min((suspect.place for suspect in chosen), default=len(self.layers))
        found = []
        with self.original.lent(names) as lent, put_back(self.layers.model, lent), torch.no_grad():
            for batch, ids in enumerate(self.batches):
                hidden = self.given(batch, begin)
                for index in range(max(begin, 0), len(self.layers)):
                    hidden = self.layers.run(index, hidden, self._calls[batch][index])
                found.append(self.targets[batch].distance(self.layers.head(ids, hidden)))
        return Distance.joined(found)

    def given(self, batch: int, layer: int) -> "Tensor":
        """What a layer is given; the embedding's result anew where that is asked for by -1."""
        if layer < 0:
            notes = self.layers.noted(self.batches[batch], self._calls[batch])
            assert notes.hidden is not None, "every layer was called"
            return notes.hidden
        return self._shelf.take(self._key(batch, layer), self.layers.device)

    def call(self, batch: int, layer: int) -> Call:
        """How a layer is called, beside the hidden states."""
        return self._calls[batch][layer]

    def _key(self, batch: int, layer: int) -> int:
        return layer * len(self.batches) + batch

    def _read_reference(self, advance: Callable[[int], None]) -> list[Targets]:
        """What the reference expects; its hidden states behind each layer go to the shelf."""

        def seen(layer: int, batch: int, hidden: "Tensor") -> None:
            self._shelf.put(self._key(batch, layer + 1), hidden)
            advance(1)

        logits = self.original.logits(self.batches, seen)
        return [Targets.of(ids, found) for ids, found in zip(self.batches, logits, strict=True)]

    def _read_candidate(self, advance: Callable[[int], None]) -> tuple[float, ...]:
        """The candidate's hidden states take the place of the reference's, once compared."""
        import torch

        errors = np.zeros(len(self.layers))
        with torch.no_grad():
            for batch, ids in enumerate(self.batches):
                notes = self.layers.noted(ids, self._calls[-1] if self._calls else ())
                assert notes.hidden is not None, "every layer was called"
                self._calls.append(notes.calls)
                hidden = notes.hidden
                if not hidden.isfinite().all():
                    raise _not_finite(self._names[self.layers.model.get_input_embeddings()])
                self._shelf.put(self._key(batch, 0), hidden)
                for index, call in enumerate(notes.calls):
                    key = self._key(batch, index + 1)
                    before, hidden = hidden, self.layers.run(index, hidden, call)
                    if not hidden.isfinite().all():
                        raise _not_finite(self._first_bad(index, before, call))
                    theirs = self._shelf.take(key, self.layers.device).float()
                    gap = (hidden.float() - theirs).norm(dim=-1) / theirs.norm(dim=-1)
                    errors[index] += float(gap.mean()) / len(self.batches)
                    self._shelf.put(key, hidden)
                    advance(1)
        return tuple(errors.tolist())

    def _first_bad(self, index: int, hidden: "Tensor", call: Call) -> str:
        """The first module of a layer whose result is not finite."""
        layer = self.layers.modules[index]
        bad: list[str] = []

        def after(module: Any, _: Any, result: Any) -> None:
            if hasattr(result, "isfinite") and not result.isfinite().all():
                bad.append(self._names[module])

        hooks = [module.register_forward_hook(after) for module in layer.modules()]
        try:
            self.layers.run(index, hidden, call)
        finally:
            for hook in hooks:
                hook.remove()
        return bad[0]


def _not_finite(module: str) -> NonFiniteLogitsError:
    return NonFiniteLogitsError(
        f"{module} gives values that are NaN or infinite",
        "Look at its scales with gate lint, and export it again.",
    )


@contextmanager
def put_back(model: Any, modules: Mapping[str, Any]) -> Iterator[None]:
    """Run these modules in place of the model's own of the same names."""
    own = {name: model.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            _set(model, name, module)
        yield
    finally:
        for name, module in own.items():
            _set(model, name, module)


def _set(model: Any, name: str, module: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
