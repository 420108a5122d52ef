"""A candidate in memory, and its reference of which modules are had one by one."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gate import devices
from gate.backends import hf_inputs, hf_memory, hf_model, hf_rounding
from gate.backends.hf_layers import Layers
from gate.backends.hf_rounding import InputQuantizer
from gate.backends.hf_stream import Streamed
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError, CheckpointError
from gate.formats import FORMATS
from gate.quantization import Format, QuantizedLayer, identify
from gate.settings import Settings


@dataclass(frozen=True)
class Pair:
    """Both models.

    Attributes:
        layers: Of the candidate, all of whose weights are decoded.
        packed: What is stored quantized of it.
        quantizers: Of its inputs, by parameter.
        original: The reference.
    """

    layers: Layers
    packed: tuple[QuantizedLayer, ...]
    quantizers: Mapping[str, InputQuantizer]
    original: Streamed


@contextlib.contextmanager
def loaded(
    checkpoint: Checkpoint, form: Format | None, original: Checkpoint, settings: Settings
) -> Iterator[Pair]:
    """Load the candidate, and outline the reference in the candidate's dtype.

    Raises:
        CheckpointError: A weight is missing, or the two are not the same architecture.
        BackendUnavailableError: The candidate takes more than one device, or its architecture
            cannot be run layer by layer.
        OutOfMemoryError: Memory ran out, now or later.
    """

    def unsuited(why: str) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"{checkpoint.source} cannot be diagnosed layer by layer: {why}",
            "Compare its weights alone: gate lint CHECKPOINT --reference ORIGINAL",
        )

    if checkpoint.whole_file is not None:
        raise unsuited("a GGUF file's tensors are not called as the reference's modules are")
    with contextlib.ExitStack() as held, hf_memory.guarded("diagnosing"):
        model = hf_model.load(
            checkpoint,
            form,
            reserve=lambda needed: held.enter_context(devices.reserved(needed)),
            trust_remote_code=settings.trust_remote_code,
        )
        model.requires_grad_(False)
        if len({parameter.device for parameter in model.parameters()}) > 1:
            raise unsuited("it takes more than one device")
        layers = Layers(model, model.device, unsuited)
        streamed = Streamed(
            original,
            identify(original, FORMATS),
            model.device,
            settings.trust_remote_code,
            model.dtype,
            unsuited,
        )
        _require_alike(model, checkpoint, streamed.model, original)
        packed = hf_model.quantized_layers(checkpoint, form)
        quantizers: Mapping[str, InputQuantizer] = {}
        if settings.activations == "emulate":
            quantizers, _ = hf_inputs.attach(model, packed, hf_rounding.Rounding())
        yield Pair(layers, packed, quantizers, streamed)


def _require_alike(model: Any, checkpoint: Checkpoint, other: Any, original: Checkpoint) -> None:
    """Refuse a reference whose modules would not fit in the candidate's place.

    Raises:
        CheckpointError: Naming the first tensor that differs.
    """
    ours, theirs = (
        {name: tuple(tensor.shape) for name, tensor in found.state_dict().items()}
        for found in (model, other)
    )
    hint = "Name the unquantized checkpoint that this one was made from."
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            one, two = (found.get(name, "absent") for found in (ours, theirs))
            raise CheckpointError(
                f"{name} is {one} in {checkpoint.source} and {two} in {original.source}", hint
            )
