"""What every module's damage is worth to first order: one pass back through the candidate."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gate import terminal
from gate.diagnosis.passes import Passes
from gate.diagnosis.suspects import Suspect
from gate.evaluate import Progress

if TYPE_CHECKING:
    from torch import Tensor


def estimates(
    passes: Passes, suspects: Iterable[Suspect], progress: Progress = terminal.silent
) -> dict[str, float]:
    """Divergence that would go away if each suspect were put back, in nats a token.

    For a module with result y that the reference's own module would turn into y' from the same
    input, that is half of the inner product of y - y' and the divergence's gradient: exact in sum
    where the divergence is a square form. Layers are taken from the last to the first, each with
    its own graph, so no more than one layer's results are kept.

    Args:
        passes: The candidate on its windows.
        suspects: Those outside of the decoder layers are left out.

    Returns:
        By the suspect's name.

    Source: Taylor's theorem; arXiv 2306.00978 and 2306.07629 rank weights by such products.
    """
    by_layer: dict[int, list[Suspect]] = defaultdict(list)
    for suspect in suspects:
        if suspect.layer is not None:
            by_layer[suspect.layer].append(suspect)
    found: dict[str, float] = defaultdict(float)
    tokens = sum(ids.shape[0] * (ids.shape[1] - 1) for ids in passes.batches)
    gradients = [_behind_all(passes, batch) for batch in range(len(passes.batches))]
    with progress("estimating each module's share", passes.steps) as advance:
        for index in reversed(range(len(passes.layers))):
            chosen = by_layer[index]
            with passes.original.lent([name for s in chosen for name in s.modules]) as lent:
                for batch, gradient in enumerate(gradients):
                    with _noting(passes.layers.model, chosen) as noted:
                        gradients[batch] = _through(passes, index, batch, gradient)
                    for suspect in chosen:
                        found[suspect.name] += _product(noted, suspect, lent) / (2 * tokens)
                    advance(1)
    return dict(found)


class _Noted:
    """What one module was given and gave, and the gradient of that."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: "Tensor"
    gradient: "Tensor | None" = None


@contextmanager
def _noting(model: Any, suspects: Sequence[Suspect]) -> Iterator[dict[str, _Noted]]:
    """Note the calls of these suspects' modules, their inputs before they are rounded."""
    notes = {name: _Noted() for suspect in suspects for name in suspect.modules}
    hooks = []
    for name, note in notes.items():

        def before(_: Any, args: Any, kwargs: Any, note: _Noted = note) -> None:
            note.args, note.kwargs = args, kwargs

        def after(_: Any, args: Any, result: Any, note: _Noted = note) -> None:
            def keep(gradient: "Tensor") -> None:
                note.gradient = gradient

            note.result = result.detach()
            result.register_hook(keep)

        module = model.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
        hooks.append(module.register_forward_hook(after))
    try:
        yield notes
    finally:
        for hook in hooks:
            hook.remove()


def _behind_all(passes: Passes, batch: int) -> "Tensor":
    """The divergence's gradient, summed over the batch's tokens, by the last layer's result."""
    import torch

    with torch.enable_grad():
        hidden = passes.given(batch, len(passes.layers)).requires_grad_()
        logits = passes.layers.head(passes.batches[batch], hidden)
        outer = passes.targets[batch].gradient(logits.detach())
        (found,) = torch.autograd.grad(logits, hidden, outer)
    return found


def _through(passes: Passes, index: int, batch: int, gradient: "Tensor") -> "Tensor":
    """The gradient by what a layer is given, from that by its result."""
    import torch

    with torch.enable_grad():
        hidden = passes.given(batch, index).requires_grad_()
        result = passes.layers.run(index, hidden, passes.call(batch, index))
        (found,) = torch.autograd.grad(result, hidden, gradient)
    return found


def _product(noted: Mapping[str, _Noted], suspect: Suspect, lent: Mapping[str, Any]) -> float:
    """Inner product of a suspect's gradient and what its results would lose."""
    import torch

    total = 0.0
    with torch.no_grad():
        for name in suspect.modules:
            note = noted[name]
            if note.gradient is None:
                continue
            theirs = lent[name](*note.args, **note.kwargs)
            total += float(((note.result - theirs).float() * note.gradient.float()).sum())
    return total
