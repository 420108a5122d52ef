"""bitsandbytes: four-bit floats in blocks (NF4, FP4), and integers of eight bits.

Source: https://github.com/bitsandbytes-foundation/bitsandbytes (`functional.py`, `QuantState`;
`nn/modules.py`, `Linear8bitLt`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gate.checkpoint import DTYPE_BITS, Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.formats.bitsandbytes_decoders import BLOCK_SIZES, four_bits, int8, read_state
from gate.formats.skipped import Unconverted, convertible, gather
from gate.quantization import (
    FLOAT_DTYPES,
    Declaration,
    QuantizedLayer,
    Role,
    Scheme,
    TensorSpec,
)

BELOW_WEIGHT = {
    "absmax": Role.WEIGHT_SCALE,
    "quant_map": Role.QUANT_MAP,
    "nested_absmax": Role.NESTED_SCALE,
    "nested_quant_map": Role.NESTED_QUANT_MAP,
    "bitsandbytes__nf4": Role.QUANT_STATE,
    "bitsandbytes__fp4": Role.QUANT_STATE,
}
"""What stands below `weight.` in a name; the state's parent is `weight.quant_state`."""

NESTED = frozenset({Role.NESTED_SCALE, Role.NESTED_QUANT_MAP})

NESTED_BLOCK_SIZE = 256

OUTLIER = 6.0
"""`llm_int8_threshold` where none is stated; 0 stands for no exception."""

STORAGE = {"uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""`bnb_4bit_quant_storage` to the dtype that holds the codes."""

_F32 = frozenset({"F32"})


class BitsAndBytes:
    """The format of checkpoints saved with bitsandbytes' layers."""

    name = "bitsandbytes"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """Declared by name, or by one of its flags as older versions did."""
        declared = checkpoint.quantization_config or {}
        method = declared.get("quant_method")
        flagged = declared.get("load_in_4bit") is True or declared.get("load_in_8bit") is True
        return method == self.name or (method is None and flagged)

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """What config.json declares; its list of modules is no list of patterns."""
        (algo,) = self.algorithms(checkpoint)
        return (Declaration("config.json", algo, None, None, None, None),)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """NF4, FP4 or INT8."""
        declared = checkpoint.quantization_config or {}
        if declared.get("load_in_8bit") is True:
            return {"INT8": True}
        kind = str(declared.get("bnb_4bit_quant_type", "fp4")).upper()
        known = kind in {"NF4", "FP4"}
        return {kind if known else "bitsandbytes": known and _storage(declared) is not None}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The declared weight width in bits."""
        return 8 if "INT8" in self.algorithms(checkpoint) else 4

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        declared = checkpoint.quantization_config or {}
        (algo,) = self.algorithms(checkpoint)
        storage, inputs = _storage(declared), _input_scheme(algo, declared)
        skipped = Unconverted(declared.get("llm_int8_skip_modules"))
        marked, plain = _stored(checkpoint.tensors)
        for module, tensors in marked.items():
            own = "" if skipped.surely(module) else algo
            yield _layer(checkpoint, module, own, storage, inputs if own else None, tensors)
        for module, info in convertible(plain, marked).items():
            if not skipped.perhaps(module):
                yield _layer(checkpoint, module, algo, storage, inputs, {Role.WEIGHT: info})

    def is_companion(self, tensor: str) -> bool:
        """Scales, maps and states."""
        parent, _, suffix = tensor.rpartition(".")
        below = parent.endswith((".weight", ".weight.quant_state"))
        return (below and suffix in BELOW_WEIGHT) or suffix in {"SCB", "weight_format"}

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        if layer.scheme is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or 'undeclared'}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        return int8(layer, xp) if layer.algo == "INT8" else four_bits(layer, xp)


def _storage(declared: Mapping[str, Any]) -> str | None:
    """The dtype of the words that hold codes of four bits; None where it is not known."""
    return STORAGE.get(str(declared.get("bnb_4bit_quant_storage", "uint8")))


def _input_scheme(algo: str, declared: Mapping[str, Any]) -> Scheme | None:
    """INT8 multiplies integers, save where an input has an outlier; four bits are decoded first."""
    if algo != "INT8":
        return None
    stated = declared.get("llm_int8_threshold", OUTLIER)
    threshold = stated if type(stated) in {int, float} and 0 <= stated < 1e30 else OUTLIER
    return replace(_INT8_INPUT, outlier=float(threshold) or None)


def _stored(
    tensors: Mapping[str, TensorInfo],
) -> tuple[dict[str, dict[Role, TensorInfo]], dict[str, TensorInfo]]:
    """Modules that bear marks of quantization, and the plain two-dimensional weights."""
    marked, plain = gather(tensors, {"SCB": Role.WEIGHT_SCALE})
    for name, info in tensors.items():
        parent, _, suffix = name.rpartition(".")
        if suffix in BELOW_WEIGHT:
            module = parent.removesuffix(".quant_state").removesuffix(".weight")
            if len(module) < len(parent):
                marked.setdefault(module, {})[BELOW_WEIGHT[suffix]] = info
        elif suffix == "weight" and info.dtype in {"U8", "I8"}:
            marked.setdefault(parent, {})[Role.WEIGHT] = info
    for module, roles in marked.items():
        # The codes may be stored in words of floats.
        weight = tensors.get(f"{module}.weight")
        if weight is not None:
            roles[Role.WEIGHT] = weight
            plain.pop(module, None)
        if NESTED & roles.keys() and Role.WEIGHT_SCALE in roles:
            # Quantized itself, it holds codes and no values.
            roles[Role.WEIGHT_SCALE_CODES] = roles.pop(Role.WEIGHT_SCALE)
    return marked, plain


def _layer(
    checkpoint: Checkpoint,
    module: str,
    algo: str,
    storage: str | None,
    input_scheme: Scheme | None,
    tensors: Mapping[Role, TensorInfo],
) -> QuantizedLayer:
    weight = tensors.get(Role.WEIGHT)
    scheme: Scheme | None = None
    expected: Mapping[Role, TensorSpec] = {}
    if algo == "INT8":
        scheme = _INT8
        expected = _int8(weight.shape if weight else None)
    elif algo in {"NF4", "FP4"} and storage:
        scheme = _BLOCKS
        scale = tensors.get(Role.WEIGHT_SCALE_CODES, tensors.get(Role.WEIGHT_SCALE))
        nested = not NESTED.isdisjoint(tensors)
        expected = _four_bits(storage, weight and weight.numel, nested, scale and scale.numel)
    return QuantizedLayer(
        name=module,
        algo=algo,
        scheme=scheme,
        input_scheme=input_scheme,
        tensors=tensors,
        expected=expected,
        declared=bool(algo),
        checkpoint=checkpoint,
        shape=_shape(checkpoint, algo, tensors),
    )


def _shape(
    checkpoint: Checkpoint, algo: str, tensors: Mapping[Role, TensorInfo]
) -> tuple[int, ...] | None:
    """(out_features, in_features), of four-bit codes by their state, which is no header's."""
    weight, info = tensors.get(Role.WEIGHT), tensors.get(Role.QUANT_STATE)
    if weight is None:
        return None
    plain = len(tensors) == 1 and weight.dtype in FLOAT_DTYPES
    if plain or algo == "INT8":
        return weight.shape if len(weight.shape) == 2 else None
    if info is None or not checkpoint.local or info.file in checkpoint.broken_files:
        return None
    state = read_state(checkpoint, info)
    fits = state is not None and -(-math.prod(state.shape) // 2) == weight.nbytes
    return state.shape if state and fits else None


_INT8 = Scheme(8, "int", "channel")
_INT8_INPUT = Scheme(8, "int", "token", dynamic=True)
_BLOCKS = Scheme(4, "float", "group")


@lru_cache(maxsize=4096)
def _int8(weight: tuple[int, ...] | None) -> Mapping[Role, TensorSpec]:
    rows = ((weight[0],),) if weight else None
    return {
        Role.WEIGHT: TensorSpec(frozenset({"I8"}), stored_as="weight"),
        Role.WEIGHT_SCALE: TensorSpec(_F32, rows, "SCB"),
    }


@lru_cache(maxsize=4096)
def _four_bits(
    storage: str, words: int | None, nested: bool, scales: int | None
) -> Mapping[Role, TensorSpec]:
    """What stands beside four-bit codes.

    Args:
        storage: Dtype of the words that hold them.
        words: Elements of the weight.
        nested: Whether the scales are quantized again.
        scales: Elements of the scale.
    """
    per_word = DTYPE_BITS[storage] // 4
    # The size of a block is told by the state's data; any that bitsandbytes knows will do here.
    counts = [-(-words * per_word // size) for size in BLOCK_SIZES] if words else []
    blocks = tuple((count,) for count in counts) or None
    expected = {
        # A column: rows are what the library's CPU kernels compute with, and nothing reads back.
        Role.WEIGHT: TensorSpec(frozenset({storage}), ((words or 0, 1),), "weight"),
        Role.QUANT_MAP: TensorSpec(_F32, ((16,),), "weight.quant_map"),
        Role.QUANT_STATE: TensorSpec(frozenset({"U8"}), None, "weight.quant_state"),
    }
    if not nested:
        return expected | {Role.WEIGHT_SCALE: TensorSpec(_F32, blocks, "weight.absmax")}
    outer = ((-(-scales // NESTED_BLOCK_SIZE),),) if scales else None
    return expected | {
        Role.WEIGHT_SCALE_CODES: TensorSpec(frozenset({"U8"}), blocks, "weight.absmax"),
        Role.NESTED_SCALE: TensorSpec(_F32, outer, "weight.nested_absmax"),
        Role.NESTED_QUANT_MAP: TensorSpec(_F32, ((256,),), "weight.nested_quant_map"),
    }
