"""A checkpoint as the target's runtime computes it, which need not be as it is stored.

Layers that a runtime joins into one (q, k, v; gate, up) have one scale there. Weights in FP8 are
quantized again to the largest of their scales, and the input takes the largest of its own; of NVFP4
the codes stay, under the largest global scale. Where a GPU has no matrix units for a format, the
kernel decodes the weights and leaves the inputs as they are.

Source: https://github.com/vllm-project/vllm (`quantization/modelopt.py`,
`quantization/utils/w8a8_utils.py`), which SGLang follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gate.architecture import expert_index, fused
from gate.checkpoint import Checkpoint, TensorInfo
from gate.quantization import Declaration, Format, QuantizedLayer, Role
from gate.records import Agreement, Concern, Fit, Targeted
from gate.settings import Settings

JOINING = frozenset({"vllm", "sglang"})
"""Runtimes known to give joined layers one scale; what others do was not checked."""

DECODING = frozenset({"weight-only kernel", "dequantized"})
"""Paths on which inputs stay as they are."""

GLOBAL = {Role.WEIGHT_GLOBAL_SCALE: max, Role.WEIGHT_GLOBAL_DIVISOR: min}
INPUT = {Role.INPUT_SCALE: max, Role.INPUT_GLOBAL_DIVISOR: min}
"""Scales of which joined layers share one, and which it is: the smallest divisor is the largest
scale."""


class Emulated:
    """A format whose layers are described and decoded as a runtime computes them; see `Format`.

    Args:
        form: See `stored`.
        checkpoint: Whose layers are joined.
        decoding: Algorithms whose inputs stay as they are.
        joins: Whether layers are joined.

    Attributes:
        stored: The format as it is stored.
        requantized: Name of each layer whose weights are quantized again, and the scale.
    """

    def __init__(
        self, form: Format, checkpoint: Checkpoint, decoding: frozenset[str], joins: bool
    ) -> None:
        self.name, self.stored, self._decoding = form.name, form, decoding
        layers = {layer.name: layer for layer in form.layers(checkpoint) if layer.packed}
        groups = list(fused(layers)) if joins else []
        self._shared = {name: found for group in groups for name, found in _shared(group)}
        self.requantized = {name: scale for group in groups for name, scale in _requantized(group)}

    def matches(self, checkpoint: Checkpoint) -> bool:
        """See `Format.matches`."""
        return self.stored.matches(checkpoint)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """See `Format.algorithms`."""
        return self.stored.algorithms(checkpoint)

    def declarations(self, checkpoint: Checkpoint) -> Sequence[Declaration]:
        """See `Format.declarations`."""
        return self.stored.declarations(checkpoint)

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """See `Format.weight_bits`."""
        return self.stored.weight_bits(checkpoint)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """Every layer with the scales that it has once it is joined."""
        for layer in self.stored.layers(checkpoint):
            scheme = None if layer.algo in self._decoding else layer.input_scheme
            tensors = {**layer.tensors, **self._shared.get(layer.name, {})}
            yield replace(layer, tensors=tensors, input_scheme=scheme)

    def is_companion(self, tensor: str) -> bool:
        """See `Format.is_companion`."""
        return self.stored.is_companion(tensor)

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """The weight's values after the runtime has quantized them again; see `Format`."""
        import torch

        from gate.activations import round_e4m3

        stored = self.stored.dequantize(layer, xp)
        scale = self.requantized.get(layer.name)
        if scale is None:
            return stored
        # It decodes to float16 before it quantizes again.
        decoded = torch.as_tensor(stored).half().float()
        values = round_e4m3(decoded / scale) * scale
        return values.numpy() if xp is np else values


def emulated(
    form: Format | None, checkpoint: Checkpoint, settings: Settings, fit: Fit | None
) -> Format | None:
    """The format by which a checkpoint is decoded for the settings' target; itself without one.

    Args:
        form: None for an unquantized checkpoint.
        checkpoint: What is measured.
        settings: `backend` and `weights` are read.
        fit: What the table of support says of the target; None without one.
    """
    if form is None or fit is None or settings.weights == "stored" or settings.backend != "hf":
        return form
    decoding = frozenset(way.algorithm for way in fit.executions if way.path in DECODING)
    return Emulated(form, checkpoint, decoding, fit.target.runtime in JOINING)


def targeted(
    form: Format | None,
    settings: Settings,
    fit: Fit | None,
    device: str,
    agreement: Agreement | None = None,
) -> Targeted | None:
    """The target, and how what is measured differs from what it computes; None without one.

    Args:
        form: By which the checkpoint is decoded.
        settings: Who measures, and how.
        fit: What the table of support says of the target.
        device: On which it is measured.
        agreement: Of the weights that are computed with and the stored ones.
    """
    if fit is None or fit.runtime is None:
        return None
    where = f" on {fit.device}" if fit.device else ""
    own = settings.backend == "hf" and form is not None
    return Targeted(
        name=f"{fit.runtime}{where}",
        requantized=len(form.requantized) if isinstance(form, Emulated) else 0,
        kl=agreement.kl if agreement else None,
        tokens=agreement.tokens if agreement else 0,
        differs=tuple(_differences(settings, fit) if own else _elsewhere(settings, fit, device)),
        unknown=tuple(_unknown(fit)) if own else (),
    )


def concerns(target: Targeted | None) -> Iterator[Concern]:
    """That what was measured is not what the target computes, or may not be."""
    if target is None:
        return
    for sentence in target.differs:
        yield Concern(
            kind="other-path",
            message=f"{target.name} computes something else: {sentence}",
            fix="Leave weights and activations out of quant-gate.yaml, or measure on the target.",
        )
    for sentence in target.unknown:
        yield Concern(
            kind="unknown-path",
            message=f"{target.name} may compute something else: {sentence}",
            fix="Measure on the target itself before it is released there.",
        )


def _differences(settings: Settings, fit: Fit) -> Iterator[str]:
    """Of what is emulated here."""
    if settings.weights == "stored":
        yield "weights: stored decodes the files as they are"
    native = ", ".join(way.algorithm for way in fit.executions if way.path.startswith("native"))
    if settings.activations == "off" and native:
        yield f"activations: off leaves the inputs of {native} as they are"


def _elsewhere(settings: Settings, fit: Fit, device: str) -> Iterator[str]:
    """Of what another engine computes; an unquantized model is the same everywhere."""
    gpu = fit.target.gpu
    same = settings.backend == fit.target.runtime and (not gpu or gpu.lower() in device.lower())
    if settings.backend != "hf" and not same:
        yield f"this was computed by {settings.backend} on {device or 'an unknown device'}"


def _unknown(fit: Fit) -> Iterator[str]:
    """What the table of support leaves open."""
    unknown = ", ".join(way.algorithm for way in fit.executions if way.path == "not known")
    if unknown:
        yield f"the table of support does not say which way {unknown} takes there"
    if fit.target.runtime not in JOINING and any("FP" in way.path for way in fit.executions):
        yield "whether it gives joined layers one scale was not checked"


def _shared(group: Sequence[QuantizedLayer]) -> Iterator[tuple[str, Mapping[Role, TensorInfo]]]:
    """Name of each layer of a group, and the scales that it has in common with the others."""
    # Of an expert's weights the first one's global scale is taken, whatever the others have.
    expert = expert_index(group[0].name) is not None
    found: dict[Role, TensorInfo] = {}
    for role, largest in (GLOBAL | INPUT).items():
        if all(role in layer.scales for layer in group):
            by_scale = partial(_scale, role)
            chosen = group[0] if expert and role in GLOBAL else largest(group, key=by_scale)
            found[role] = chosen.tensors[role]
    for layer in group:
        yield layer.name, found


def _requantized(group: Sequence[QuantizedLayer]) -> Iterator[tuple[str, float]]:
    """Name and new scale of each layer of a group whose FP8 weights have different scales."""
    for layer in group:
        scheme = layer.scheme
        kind = (scheme.type, scheme.num_bits, scheme.strategy) if scheme else None
        if kind != ("float", 8, "tensor") or Role.WEIGHT_SCALE not in layer.scales:
            return
    scales = [_scale(Role.WEIGHT_SCALE, layer) for layer in group]
    if len(set(scales)) > 1:
        yield from ((layer.name, max(scales)) for layer in group)


def _scale(role: Role, layer: QuantizedLayer) -> float:
    return layer.scales[role].high
