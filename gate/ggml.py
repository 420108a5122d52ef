"""ggml's tensor types and architectures: a block's weights, bytes and scales, a model's tensors.

Numbers, sizes and names come from the package gguf, imported when needed: that takes 0.1 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
"""Types that ggml once had. Source: https://github.com/ggml-org/llama.cpp (`ggml_type`)."""

FORK_TYPES = {
    36: "I2_S", 133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 137: "IQ2_K", 138: "IQ3_K",
    139: "IQ4_K", 140: "IQ5_K", 141: "IQ6_K", 144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS",
    151: "Q8_KV", 152: "IQ5_KS", 153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT", 156: "IQ3_KS",
    157: "IQ2_KL", 158: "IQ1_KT",
}  # fmt: skip
"""Types that only ik_llama.cpp reads. Source: https://github.com/ikawrakow/ik_llama.cpp."""

REPACKED = 200
"""ik_llama.cpp adds this to a type whose rows it stores interleaved."""

NO_MODELS = frozenset({"clip", "mmproj", "controlvector", "imatrix"})
"""What general.architecture calls files that accompany a model."""

END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Keys below `tokenizer.ggml` of tokens at which every runtime ends an answer."""

FLOATS = frozenset({"F32", "F16", "BF16", "F64"})
INTEGERS = frozenset({"I8", "I16", "I32", "I64"})


@dataclass(frozen=True)
class Block:
    """What one block of a type holds.

    Attributes:
        weights: Neighbours in a row that are stored together.
        nbytes: Bytes that they take, scales included.
    """

    weights: int
    nbytes: int


@dataclass(frozen=True)
class ScaleField:
    """Where a block holds the scales by which all of its weights are multiplied.

    Attributes:
        offset: First byte in the block.
        kind: `f2` or `f4` for floating point; `e8m0`, `ue4m3`; `iq1_m` for the half-precision
            number that is spread over four words.
        count: Of them, one after another; with two, the second belongs to the minimum.
    """

    offset: int
    kind: str
    count: int = 1


@dataclass(frozen=True)
class LongArray:
    """An array of a GGUF header that was measured and not kept.

    Attributes:
        type: Number of the elements' value type.
        begin, end: Its first byte in the file, and the one behind its last.
    """

    type: int
    length: int
    begin: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return self.length


_FIRST, _PAIR = ScaleField(0, "f2"), ScaleField(0, "f2", 2)
SCALE_FIELDS: Mapping[str, ScaleField] = {
    "Q4_0": _FIRST, "Q5_0": _FIRST, "Q8_0": _FIRST, "Q4_1": _PAIR, "Q5_1": _PAIR,
    "Q2_K": ScaleField(80, "f2", 2), "Q3_K": ScaleField(108, "f2"), "Q4_K": _PAIR, "Q5_K": _PAIR,
    "Q6_K": ScaleField(208, "f2"), "Q8_K": ScaleField(0, "f4"), "Q1_0": _FIRST,
    "IQ1_S": _FIRST, "IQ1_M": ScaleField(48, "iq1_m"), "IQ2_XXS": _FIRST, "IQ2_XS": _FIRST,
    "IQ2_S": _FIRST, "IQ3_XXS": _FIRST, "IQ3_S": _FIRST, "IQ4_NL": _FIRST, "IQ4_XS": _FIRST,
    "TQ1_0": ScaleField(52, "f2"), "TQ2_0": ScaleField(64, "f2"),
    "MXFP4": ScaleField(0, "e8m0"), "NVFP4": ScaleField(0, "ue4m3", 4),
}  # fmt: skip
"""Type to its scales. Source: https://github.com/ggml-org/llama.cpp (`ggml-common.h`)."""


MIXTURES = {
    "IQ2_S": frozenset({"IQ2_XS", "IQ2_S"}), "IQ2_M": frozenset({"IQ2_S"}),
    "IQ3_XS": frozenset({"IQ3_XXS", "IQ3_S"}), "IQ3_S": frozenset({"IQ3_S"}),
    "IQ3_M": frozenset({"IQ3_S"}),
}  # fmt: skip
"""Labels of files whose main types are called otherwise. Source: llama.cpp's llama-quant.cpp."""


def type_name(number: int) -> str:
    """The name of a type: ggml's, ik_llama.cpp's, or `type 99` where neither has it."""
    if number in _types():
        return _types()[number]
    if number - REPACKED in _types().keys() | FORK_TYPES.keys():
        return f"{type_name(number - REPACKED)}_R"
    return FORK_TYPES.get(number) or REMOVED.get(number) or f"type {number}"


def block(dtype: str) -> Block | None:
    """What a block of this type holds; None for a type that ggml has not."""
    return _blocks().get(dtype)


def is_fork_type(dtype: str) -> bool:
    """Whether only ik_llama.cpp reads this type."""
    return dtype in FORK_TYPES.values() or dtype.endswith("_R")


def is_quantized(dtype: str) -> bool:
    """Whether a GGUF file's tensor of this type is neither floating point nor integer."""
    return dtype not in FLOATS and dtype not in INTEGERS


@lru_cache(maxsize=256)
def is_decodable(dtype: str) -> bool:
    """Whether the package gguf dequantizes this type."""
    import numpy as np

    held = block(dtype)
    if held is None:
        return False
    try:
        dequantize(np.zeros((1, held.nbytes), np.uint8), dtype)
    except NotImplementedError:
        return False
    return True


def dequantize(rows: "np.ndarray", dtype: str) -> "np.ndarray":
    """The values of a tensor, by the package gguf: float32, shape (..., columns).

    Args:
        rows: uint8, shape (..., bytes of a row).
        dtype: For which `is_decodable`.

    Raises:
        NotImplementedError: The package does not know how.
    """
    import numpy as np
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    # A scale may be anything: what is no number is for whoever asked to judge.
    with np.errstate(all="ignore"):
        values: np.ndarray = quants.dequantize(rows, GGMLQuantizationType[dtype])
    return values


@lru_cache(maxsize=1)
def _types() -> Mapping[int, str]:
    from gguf.constants import GGMLQuantizationType

    return {int(kind): kind.name for kind in GGMLQuantizationType}


@lru_cache(maxsize=1)
def _blocks() -> Mapping[str, Block]:
    from gguf.constants import GGML_QUANT_SIZES

    return {kind.name: Block(*size) for kind, size in GGML_QUANT_SIZES.items()}


def scales_not_finite(blocks: "np.ndarray", dtype: str) -> "np.ndarray":
    """Which blocks have a scale that is infinite or no number: bool, shape (blocks,).

    Args:
        blocks: uint8, shape (blocks, bytes of a block).
        dtype: Any of `SCALE_FIELDS`.

    NVFP4's code for no number counts, although llama.cpp takes it for zero: hardware does not.

    Source: llama.cpp's option --check-tensors (`ggml_validate_row_data`).
    """
    import numpy as np

    field = SCALE_FIELDS[dtype]
    if field.kind == "e8m0":
        bad = _codes(blocks, field, "u1") == 0xFF
    elif field.kind == "ue4m3":
        bad = _codes(blocks, field, "u1") & 0x7F == 0x7F
    elif field.kind == "f4":
        bad = _codes(blocks, field, "<u4") & 0x7F800000 == 0x7F800000
    else:
        bad = _halves(blocks, field) & 0x7C00 == 0x7C00
    # Along so short an axis numpy is slow: look there only where something is.
    found: np.ndarray = bad.any(axis=1) if bad.any() else np.zeros(len(blocks), bool)
    return found


def _codes(blocks: "np.ndarray", field: ScaleField, dtype: str, count: int = 0) -> "np.ndarray":
    """The bits of the scales, not copied: shape (blocks, count)."""
    import numpy as np

    kind = np.dtype(dtype)
    return np.ndarray(
        (len(blocks), count or field.count),
        kind,
        buffer=blocks,
        offset=field.offset,
        strides=(blocks.shape[1], kind.itemsize),
    )


def _halves(blocks: "np.ndarray", field: ScaleField) -> "np.ndarray":
    """The bits of half-precision scales: uint16, shape (blocks, count)."""
    if field.kind == "f2":
        return _codes(blocks, field, "<u2")
    words = _codes(blocks, field, "<u2", 4)
    first, second = words[:, 0] >> 12, words[:, 1] >> 8 & 0x00F0
    third, fourth = words[:, 2] >> 4 & 0x0F00, words[:, 3] & 0xF000
    spread: np.ndarray = (first | second | third | fourth)[:, None]
    return spread


def is_model(metadata: Mapping[str, Any]) -> bool:
    """Whether a GGUF file is a language model: no adapter, projector, imatrix or the like."""
    kind = metadata.get("general.type", "model")
    return kind == "model" and str(metadata.get("general.architecture")) not in NO_MODELS


def end_tokens(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Token ids that end an answer, the end of a text first."""
    found = (metadata.get(f"tokenizer.ggml.{key}") for key in END_TOKENS)
    return tuple(dict.fromkeys(token for token in found if type(token) is int))


@lru_cache(maxsize=1)
def architectures() -> Mapping[str, frozenset[str]]:
    """Architecture to the names of its tensors, `{bid}` in place of the block's number."""
    from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES

    return {
        name: frozenset(TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[kind])
        for kind, name in MODEL_ARCH_NAMES.items()
    }


def file_type(number: int) -> str | None:
    """What `general.file_type` calls a file, such as `Q4_K_M`; None for an unknown number."""
    from gguf.constants import LlamaFileType

    names = {int(kind): kind.name for kind in LlamaFileType}
    return names[number].removeprefix("MOSTLY_").removeprefix("ALL_") if number in names else None


def main_types(label: str) -> frozenset[str]:
    """The types that most of a file of this label has: the longest that begin its name."""
    if label in MIXTURES:
        return MIXTURES[label]
    names = [name for name in _blocks() if label == name or label.startswith(f"{name}_")]
    return frozenset(sorted(names, key=len)[-1:])
