"""Formats that are known by name: counted and searched for bad scales, their layout not described.

Source: https://github.com/huggingface/transformers (`QuantizationMethod`) and
https://github.com/vllm-project/vllm (`QuantizationMethods`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.quantization import FLOAT_DTYPES, Declaration, QuantizedLayer, Role

METHODS = (
    "exl2", "exl3", "quark", "torchao", "hqq", "aqlm", "vptq", "spqr", "higgs", "bitnet",
    "fp_quant", "sinq", "fouroversix", "eetq", "auto-round", "intel/auto-round",
    "mxfp8", "nvfp4", "w4afp8", "metal", "gemma", "marlin", "qqq",
    "squeezellm", "deepspeedfp", "fp6_llm", "inc",
)  # fmt: skip
"""`quant_method`, as config.json has it."""

WEIGHTS = frozenset({
    "weight", "qweight", "q_weight", "weight_packed", "weight_blocks", "trellis", "W_q", "codes",
    "indices", "B", "_data", "_weight_qdata", "dense_weights",
})  # fmt: skip
"""Last parts of the names of codes."""

SCALES = frozenset({
    "weight_scale", "weight_scale_inv", "weight_scales", "scales", "input_scale", "absmax", "suh",
    "svh", "q_scale_max", "_scale", "_weight_scale", "weight_global_scale",
})  # fmt: skip
"""Last parts of the names of scales that hold values, if their dtype is a float's."""

PARTS = frozenset({
    "q_scale", "q_groups", "q_group_map", "q_invperm", "q_perm", "su", "sv", "mcg", "mul1",
    "zeros", "qzeros", "g_idx", "codebooks", "weight_zero_point", "_weight_zero_point", "meta",
})  # fmt: skip
"""Last parts of the names of what is neither a weight nor a scale that can be read."""

TRELLIS_TILE = 16
"""Inputs, and outputs, of one tile of EXL3's trellis."""


class Recognised:
    """One format that has a name here and no description."""

    def __init__(self, name: str) -> None:
        self.name = name

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Named as config.json's quantization method."""
        return (checkpoint.quantization_config or {}).get("quant_method") == self.name

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """The bare name: what else is declared is not read."""
        return (Declaration("config.json", self.name, None, None, None, None),)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """The method, which has no decoder."""
        return {self.name: False}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """A width that is stated as a whole number."""
        declared = checkpoint.quantization_config or {}
        found = next((declared[key] for key in ("bits", "nbits") if key in declared), None)
        return found if type(found) is int and 0 < found <= 8 else None

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """Modules with codes, and with scales where names and dtypes tell which they are."""
        modules: dict[str, dict[Role, TensorInfo]] = {}
        for name, info in checkpoint.tensors.items():
            module, _, suffix = name.rpartition(".")
            if suffix in WEIGHTS and info.dtype not in FLOAT_DTYPES and info.shape:
                modules.setdefault(module, {})[Role.WEIGHT] = info
            elif suffix in SCALES and info.dtype in FLOAT_DTYPES:
                modules.setdefault(module, {}).setdefault(Role.WEIGHT_SCALE, info)
        for module, tensors in modules.items():
            yield QuantizedLayer(
                name=module,
                algo=self.name,
                scheme=None,
                input_scheme=None,
                tensors=tensors,
                expected={},
                declared=True,
                checkpoint=checkpoint,
                shape=_shape(checkpoint, module, tensors.get(Role.WEIGHT)),
            )

    def is_companion(self, tensor: str) -> bool:
        """Whatever is named like a scale or a part of the codes."""
        suffix = tensor.rpartition(".")[2]
        return suffix in SCALES or suffix in PARTS

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        raise UnknownFormatError(
            f"{layer.name} is stored as {layer.algo}, which has no decoder",
            "Judge it statically with gate lint.",
        )


def _shape(
    checkpoint: Checkpoint, module: str, weight: TensorInfo | None
) -> tuple[int, ...] | None:
    """(out_features, in_features) where the shapes themselves tell it."""
    if weight is None:
        return None
    if weight.name.endswith(".trellis") and len(weight.shape) == 3:
        rows, columns, _ = weight.shape
        return TRELLIS_TILE * columns, TRELLIS_TILE * rows
    order = checkpoint.tensors.get(f"{module}.q_invperm")
    if weight.name.endswith(".q_weight") and order is not None and len(weight.shape) == 2:
        return weight.shape[1], order.numel
    return weight.shape if weight.dtype.startswith("F8") else None
