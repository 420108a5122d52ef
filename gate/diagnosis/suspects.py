"""Modules that differ from the reference, and which of them are put back together."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gate.architecture import fused
from gate.backends.hf_layers import Layers
from gate.backends.hf_names import Names
from gate.backends.hf_stream import Streamed
from gate.checkpoint import Checkpoint
from gate.quantization import QuantizedLayer
from gate.records import LayerError, ReferenceResult

EVERYWHERE = -1
"""The place of a module outside of the decoder layers: all is read again when it changes."""


@dataclass(frozen=True)
class Suspect:
    """One module whose weight, or input, is not the reference's.

    Attributes:
        name: As the checkpoint names it; the model's name where several tensors became one.
        stored: The checkpoint's modules of which it was made.
        modules: The model's modules: one, or those that share the weight.
        layer: The decoder layer that holds it; None outside of them.
        place: The first decoder layer that gives other results when it is put back.
        quantized: Whether it is stored quantized; else only its values differ.
        extra_bytes: What it would take more in the reference's precision.
        error: Of its weight, the worst of several; None where it was not compared.
    """

    name: str
    stored: tuple[str, ...]
    modules: tuple[str, ...]
    layer: int | None
    place: int
    quantized: bool
    extra_bytes: int
    error: LayerError | None = None

    @property
    def kind(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]


@dataclass
class _Made:
    """What a model's parameter was made of."""

    names: list[str] = field(default_factory=list)
    stored_bytes: int = 0
    quantized: bool = False


def suspects(
    checkpoint: Checkpoint,
    packed: Iterable[QuantizedLayer],
    compared: ReferenceResult,
    layers: Layers,
    original: Streamed,
) -> tuple[Suspect, ...]:
    """Every module of the text decoder that is stored quantized, or differs without being so.

    Args:
        checkpoint: The candidate.
        packed: Its layers whose stored weight is quantized.
        compared: The candidate beside the reference.
        layers: Of the loaded candidate.
        original: The reference.
    """
    errors = {error.layer: error for error in compared.layers}
    where = _Where(layers)
    found = []
    for parameter, made in _parameters(checkpoint, packed, compared, layers.model).items():
        modules = where.sharing(parameter)
        if not modules:
            continue
        first = modules[0]
        name = made.names[0] if len(made.names) == 1 else first
        found.append(
            Suspect(
                name=name,
                stored=tuple(made.names),
                modules=modules,
                layer=where.layer(first),
                place=where.place(modules),
                quantized=made.quantized,
                extra_bytes=original.stored_bytes(parameter) - made.stored_bytes,
                error=_worst(errors.get(name) for name in made.names),
            )
        )
    return tuple(_once(found))


def _parameters(
    checkpoint: Checkpoint,
    packed: Iterable[QuantizedLayer],
    compared: ReferenceResult,
    model: Any,
) -> Mapping[str, _Made]:
    """The model's parameters that differ, and what they were made of."""
    names = Names(model)
    found: dict[str, _Made] = defaultdict(_Made)
    for layer in packed:
        parameter, _ = names.parameter(layer.parameter)
        if parameter is not None:
            made = found[parameter]
            made.names.append(layer.name)
            made.stored_bytes += sum(info.nbytes for info in layer.tensors.values())
            made.quantized = True
    for tensor in compared.changed_tensors:
        parameter, _ = names.parameter(tensor)
        if parameter is not None:
            made = found[parameter]
            made.names.append(tensor.rpartition(".")[0])
            made.stored_bytes += checkpoint.tensors[tensor].nbytes
    return found


def _once(found: Iterable[Suspect]) -> Iterable[Suspect]:
    """A weight and a bias of one module are one suspect."""
    by_modules: dict[tuple[str, ...], list[Suspect]] = defaultdict(list)
    for suspect in found:
        by_modules[suspect.modules].append(suspect)
    for same in by_modules.values():
        first, *_ = sorted(same, key=lambda suspect: not suspect.quantized)
        yield replace(
            first,
            stored=tuple(dict.fromkeys(name for suspect in same for name in suspect.stored)),
            extra_bytes=sum(suspect.extra_bytes for suspect in same),
            error=_worst(suspect.error for suspect in same),
        )


def _worst(errors: Iterable[LayerError | None]) -> LayerError | None:
    """The largest error; what is no number is worse than any."""
    found = [error for error in errors if error is not None]
    return max(found, key=lambda e: (math.isnan(e.relative_rms), e.relative_rms), default=None)


class _Where:
    """Where a model's parameters are used."""

    def __init__(self, layers: Layers) -> None:
        model = layers.model
        self._names = {module: name for name, module in model.named_modules()}
        self._layer = {
            module: index
            for index, layer in enumerate(layers.modules)
            for module in layer.modules()
        }
        self._head, self._count = model.get_output_embeddings(), len(layers)
        self._modules = dict(model.named_modules())
        decoder = set(model.get_decoder().modules()) | {self._head}
        self._using: dict[int, list[str]] = defaultdict(list)
        for name, module in self._modules.items():
            for parameter in module.parameters(recurse=False) if module in decoder else ():
                self._using[id(parameter)].append(name)
        self._parameters = dict(model.named_parameters(remove_duplicate=False))

    def sharing(self, parameter: str) -> tuple[str, ...]:
        """The decoder's modules that use a parameter; none for one of another part."""
        found = self._parameters.get(parameter)
        return tuple(self._using[id(found)]) if found is not None else ()

    def layer(self, module: str) -> int | None:
        """The decoder layer that a module is part of."""
        return self._layer.get(self._modules[module])

    def place(self, modules: Iterable[str]) -> int:
        """See `Suspect.place`."""
        return min(
            self._count
            if self._modules[name] is self._head
            else self._layer.get(self._modules[name], EVERYWHERE)
            for name in modules
        )


def groups(found: Iterable[Suspect]) -> tuple[tuple[Suspect, ...], ...]:
    """What can only be excluded together: siblings that runtimes join into one layer.

    Where unquantized tensors of a layer were changed too, as smoothing does, that is the whole
    layer: weights and norms may be scaled against each other.
    """
    by_name = {suspect.name: suspect for suspect in found}
    altered = {suspect.layer for suspect in by_name.values() if not suspect.quantized}
    joined: dict[str, tuple[Suspect, ...]] = {}
    whole: dict[int, list[Suspect]] = defaultdict(list)
    for suspect in by_name.values():
        joined[suspect.name] = (suspect,)
        if suspect.layer is not None and suspect.layer in altered:
            whole[suspect.layer].append(suspect)
    for together in (*fused(by_name), *map(tuple, whole.values())):
        joined |= {suspect.name: together for suspect in together}
    return tuple(dict.fromkeys(joined.values()))
