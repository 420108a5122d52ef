"""MXFP4 as gpt-oss stores it: all experts of a layer in one tensor, everything else in BF16.

Source: https://github.com/huggingface/transformers (`integrations/mxfp4.py`) and
https://github.com/openai/gpt-oss
"""

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from gate.architecture import Architecture
from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import E2M1_PAIRS, decode_float, lookup
from gate.errors import UnknownFormatError
from gate.formats.decoding import apply, require_as_described
from gate.formats.skipped import Unconverted
from gate.quantization import Declaration, QuantizedLayer, Role, Scheme, TensorSpec

ALGO = "MXFP4"
SCHEME = Scheme(4, "float", "group", group_size=32)
GROUP_BYTES = 16
"""Of the 32 values that share a scale."""
BYTES = frozenset({"U8"})
E8M0 = frozenset({"U8", "F8_E8M0"})

TENSORS = {
    f"{leaf}{suffix}": (leaf, role)
    for leaf in ("gate_up_proj", "down_proj")
    for suffix, role in (
        ("", Role.WEIGHT),
        ("_blocks", Role.WEIGHT),
        ("_scales", Role.WEIGHT_SCALE),
    )
}
"""Below `experts`; the name alone is that of unquantized ones."""


class MXFP4:
    """The format of gpt-oss."""

    name = "mxfp4"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """See `Format.matches`."""
        return (checkpoint.quantization_config or {}).get("quant_method") == self.name

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """Nothing that is like ModelOpt's declarations."""
        return ()

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """There is one."""
        return {ALGO: True}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """See `Format.weight_bits`."""
        return SCHEME.num_bits

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """The experts' layers: nothing else is converted."""
        config = checkpoint.quantization_config or {}
        skipped = Unconverted(config.get("modules_to_not_convert"))
        figures = _figures(Architecture(checkpoint.config))
        for module, tensors in _modules(checkpoint).items():
            kept = skipped.surely(module)
            plain = tensors.keys() == {Role.WEIGHT} and tensors[Role.WEIGHT].name == module
            if not (kept and plain):
                yield _layer(checkpoint, module, tensors, figures, kept=kept)

    def is_companion(self, tensor: str) -> bool:
        """See `Format.is_companion`."""
        return tensor.endswith(("_proj_scales", ".k_scale", ".v_scale"))

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        if layer.scheme is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or self.name}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        require_as_described(layer)
        blocks, info = layer.read(Role.WEIGHT), layer.tensors[Role.WEIGHT_SCALE]
        values = lookup(E2M1_PAIRS, blocks, xp).reshape((*blocks.shape[:-2], -1))
        scale = decode_float(layer.read(Role.WEIGHT_SCALE), info.dtype, xp)
        apply(operator.imul, values, scale, layer.scheme, xp)
        return values


def _modules(checkpoint: Checkpoint) -> Mapping[str, dict[Role, TensorInfo]]:
    """The experts' projections; blocks go before an unquantized weight beside them."""
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        parent, _, suffix = name.rpartition(".")
        if suffix not in TENSORS or not parent.endswith("experts"):
            continue
        leaf, role = TENSORS[suffix]
        tensors = modules[f"{parent}.{leaf}"]
        if suffix != leaf or role not in tensors:
            tensors[role] = info
    return modules


Figures = tuple[int | None, int | None, int | None]


def _figures(architecture: Architecture) -> Figures:
    """Experts, hidden size and the experts' intermediate size, as config.json has them."""
    inner = architecture.number("moe_intermediate_size", "intermediate_size")
    return architecture.experts, architecture.hidden, inner


def _layer(
    checkpoint: Checkpoint,
    module: str,
    tensors: Mapping[Role, TensorInfo],
    figures: Figures,
    *,
    kept: bool,
) -> QuantizedLayer:
    weight, scale = tensors.get(Role.WEIGHT), tensors.get(Role.WEIGHT_SCALE)
    shape = weight.shape if weight else None
    if shape and weight and weight.name != module:
        shape = (*shape[:-2], shape[-2] * 32) if len(shape) == 4 else None
    expected = _expected(
        module.rpartition(".")[2],
        figures,
        weight.shape if weight else None,
        scale.shape if scale else None,
    )
    return QuantizedLayer(
        name=module,
        algo="" if kept else ALGO,
        scheme=None if kept else SCHEME,
        input_scheme=None,
        tensors=tensors,
        expected={} if kept else expected,
        declared=not kept,
        checkpoint=checkpoint,
        shape=shape,
        transposed=True,
    )


@lru_cache(maxsize=1 << 8)
def _expected(
    leaf: str, figures: Figures, weight: tuple[int, ...] | None, scale: tuple[int, ...] | None
) -> Mapping[Role, TensorSpec]:
    """Blocks follow from config.json, else from the scales; scales follow from the blocks."""
    experts, hidden, inner = figures
    blocks: tuple[tuple[int, ...], ...] | None = None
    if experts and hidden and inner:
        rows, columns = (2 * inner, hidden) if leaf == "gate_up_proj" else (hidden, inner)
        groups, rest = divmod(columns, SCHEME.group_size or 1)
        blocks = () if rest else ((experts, rows, groups, GROUP_BYTES),)
    elif scale is not None:
        blocks = ((*scale, GROUP_BYTES),)
    return {
        Role.WEIGHT: TensorSpec(BYTES, blocks, "_blocks"),
        Role.WEIGHT_SCALE: TensorSpec(E8M0, (weight[:-1],) if weight else None, "_scales"),
    }
