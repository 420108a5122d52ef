"""What quantization means here: the contract `Format`, and the codes that formats share.

One description of a format serves the rules, the size accounting and the evaluation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gate.errors import UnknownFormatError

if TYPE_CHECKING:
    import numpy as np

    from gate.checkpoint import Checkpoint, TensorInfo

PACKED_DTYPES = frozenset({"U8", "I8", "I32", "F8_E4M3", "F8_E5M2", "F4"})
"""A linear weight of such a dtype is quantized."""
FLOAT_DTYPES = frozenset({"BF16", "F16", "F32", "F64"})


class Role(StrEnum):
    """What a tensor is to its layer. Source: compressed-tensors' parameter names."""

    WEIGHT = "weight"
    WEIGHT_SCALE = "weight_scale"
    WEIGHT_GLOBAL_SCALE = "weight_global_scale"
    WEIGHT_ZERO_POINT = "weight_zero_point"
    WEIGHT_G_IDX = "weight_g_idx"
    INPUT_SCALE = "input_scale"
    PRE_QUANT_SCALE = "pre_quant_scale"


SCALES = frozenset(
    {Role.WEIGHT_SCALE, Role.WEIGHT_GLOBAL_SCALE, Role.INPUT_SCALE, Role.PRE_QUANT_SCALE}
)
SCALE_DTYPES = FLOAT_DTYPES | {"F8_E4M3", "F8_E8M0", "U8"}
"""Dtypes in which scales are stored; U8 holds E8M0."""


@dataclass(frozen=True)
class Scheme:
    """How one tensor is quantized. Source: compressed-tensors `QuantizationArgs`.

    Attributes:
        strategy: One scale per tensor, output channel, group of inputs (`tensor_group` has a
            global scale above the group's), 2-D block, or token.
        group_size: Inputs that share a scale.
        block_structure: (rows, columns) that share a scale.
        dynamic: Whether the scale is computed from the values at run time.
    """

    num_bits: int
    type: Literal["float", "int"]
    strategy: Literal["tensor", "channel", "group", "tensor_group", "block", "token"]
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None
    symmetric: bool = True
    dynamic: bool = False
    actorder: str | None = None


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of a layer has to be.

    Attributes:
        shapes: Every accepted shape; None where any will do.
        stored_as: Its name on disk, below the module's.
    """

    dtypes: frozenset[str]
    shapes: tuple[tuple[int, ...], ...] | None = None
    stored_as: str = ""


@dataclass(frozen=True)
class QuantizedLayer:
    """One linear layer that is declared quantized, or that bears marks of it.

    Attributes:
        name: The module's name.
        algo: The algorithm declared for it, as written there; "" where none is declared.
        scheme: How the weight is quantized; None where nothing known is declared.
        input_scheme: How its input is quantized; None for weight-only formats.
        tensors: What is stored.
        expected: What the declaration asks for, derived from the scheme and the other tensors.
        declared: False where the configuration leaves the layer unquantized.
    """

    name: str
    algo: str
    scheme: Scheme | None
    input_scheme: Scheme | None
    tensors: "Mapping[Role, TensorInfo]"
    expected: Mapping[Role, TensorSpec]
    declared: bool
    checkpoint: "Checkpoint" = field(repr=False, compare=False)

    def read(self, role: Role) -> Any:
        """Raw codes of one tensor, as numpy; see `Container.read`."""
        return self.checkpoint.read(self.tensors[role])

    @cached_property
    def scales(self) -> "Mapping[Role, tuple[np.ndarray, np.ndarray]]":
        """The values of each scale and their counts, see `count_values`; read once."""
        return {
            role: count_values(self.read(role), info.dtype)
            for role, info in self.tensors.items()
            if role in SCALES and info.dtype in SCALE_DTYPES
        }

    @property
    def packed(self) -> bool:
        """Whether the stored weight itself is quantized."""
        weight = self.tensors.get(Role.WEIGHT)
        return weight is not None and weight.dtype in PACKED_DTYPES


@dataclass(frozen=True)
class Declaration:
    """What one configuration file says about quantization, whatever its shape on disk.

    Attributes:
        file: Where it was read.
        quant_algo: As written; None where nothing is quantized.
        exclude_modules: Patterns of modules that stay unquantized; None where no list is given.
        quantized_layers: Module, or parent of modules, to its own declaration.
        unknown: JSON pointer to every algorithm's name that no version of the format has.
    """

    file: str
    quant_algo: str | None
    kv_cache_quant_algo: str | None
    group_size: int | None
    exclude_modules: tuple[str, ...] | None
    quantized_layers: Mapping[str, Mapping[str, Any]] | None
    unknown: Mapping[str, str] = field(default_factory=dict)


class Format(Protocol):
    """One way of storing quantized weights."""

    name: str

    def matches(self, checkpoint: "Checkpoint") -> bool:
        """Whether the checkpoint declares this format."""
        ...

    def algorithms(self, checkpoint: "Checkpoint") -> Mapping[str, bool]:
        """Every algorithm that is declared, and whether it can be decoded here."""
        ...

    def declarations(self, checkpoint: "Checkpoint") -> Sequence[Declaration]:
        """What each configuration file declares, the one that most runtimes prefer first."""
        ...

    def weight_bits(self, checkpoint: "Checkpoint") -> int | None:
        """The lowest declared weight width in bits."""
        ...

    def layers(self, checkpoint: "Checkpoint") -> Iterator[QuantizedLayer]:
        """Every layer that is declared quantized or bears marks of it, in file order."""
        ...

    def is_companion(self, tensor: str) -> bool:
        """Whether a tensor of this name belongs to a quantized weight and is no parameter."""
        ...

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """The weight's values: float32, shape (out_features, in_features).

        Args:
            layer: What to decode.
            xp: numpy or torch; the values come back as its array.

        Raises:
            UnknownFormatError: The layer's algorithm has no decoder.
        """
        ...


def identify(checkpoint: "Checkpoint", formats: Sequence[Format]) -> Format | None:
    """The format that the checkpoint declares; None for an unquantized one."""
    return next((candidate for candidate in formats if candidate.matches(checkpoint)), None)


def require_decodable(checkpoint: "Checkpoint", form: Format | None) -> None:
    """Refuse a declared quantization that cannot be decoded exactly.

    Raises:
        UnknownFormatError: Naming the algorithms.
    """
    declared = checkpoint.quantization_config
    if form is None:
        if declared is not None:
            method = declared.get("quant_method", "unnamed")
            raise UnknownFormatError(
                f"{checkpoint.source} declares quantization method {method!r}: it has no decoder",
                "Judge it statically with gate lint, or export it with ModelOpt in FP8 or NVFP4.",
            )
        return
    missing = [algo for algo, known in form.algorithms(checkpoint).items() if not known]
    if missing:
        raise UnknownFormatError(
            f"{checkpoint.source} declares {', '.join(sorted(missing))}, which has no decoder yet",
            "Judge it statically with gate lint; it is never evaluated with undecoded weights.",
        )


def _e4m3(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 0xF, code & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


E4M3 = tuple(_e4m3(code) for code in range(256))
"""Value of each FP8 code. Source: arXiv 2209.05433, table 1 (E4M3: no infinities)."""

E2M1 = tuple(
    # Code 8 is minus zero; ModelOpt decodes it as plus zero, and adding 0.0 does the same.
    sign * value + 0.0
    for sign in (1.0, -1.0)
    for value in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
)
"""Value of each FP4 code. Source: OCP Microscaling Formats 1.0, table 6."""

E8M0 = (*(2.0 ** (code - 127) for code in range(255)), float("nan"))
"""Value of each MX scale code. Source: OCP Microscaling Formats 1.0, section 5.4.1."""

E2M1_PAIRS = tuple((E2M1[byte & 0xF], E2M1[byte >> 4]) for byte in range(256))
"""The two values in one byte, the low nibble first."""

LOOKUP_CHUNK = 1 << 18
"""Codes decoded at a time: few enough for the processor's cache (see benchmarks/decode.py)."""


def lookup(table: Sequence[Any], codes: "np.ndarray", xp: Any) -> Any:
    """Decode by table: float32, shape `codes.shape` + the shape of a table entry.

    Args:
        table: The value of each code.
        codes: uint8, any shape, as a container reads them.
        xp: numpy or torch.
    """
    values = xp.asarray(table, dtype=xp.float32)
    flat = codes.reshape(-1)
    out = xp.empty((flat.shape[0], *values.shape[1:]), dtype=xp.float32)
    for begin in range(0, flat.shape[0], LOOKUP_CHUNK):
        chunk = flat[begin : begin + LOOKUP_CHUNK].astype("int64")
        out[begin : begin + LOOKUP_CHUNK] = values[xp.asarray(chunk)]
    return out.reshape((*codes.shape, *values.shape[1:]))


def count_values(raw: "np.ndarray", dtype: str) -> "tuple[np.ndarray, np.ndarray]":
    """The values that a tensor holds, float32, and how often each, int64; both of one length.

    Codes of one byte are counted, not decoded: a block scale has few of them and many elements.
    See `decode_float`.
    """
    import numpy as np

    flat = raw.reshape(-1)
    if flat.dtype != np.uint8:
        values = decode_float(flat, dtype, np)
        return values, np.ones(len(values), np.int64)
    counts = np.zeros(256, np.int64)
    for begin in range(0, len(flat), LOOKUP_CHUNK):
        counts += np.bincount(flat[begin : begin + LOOKUP_CHUNK], minlength=256)
    codes = np.flatnonzero(counts).astype(np.uint8)
    return decode_float(codes, dtype, np), counts[codes]


def decode_float(raw: "np.ndarray", dtype: str, xp: Any) -> Any:
    """Raw codes of a floating-point tensor to float32, same shape.

    Args:
        raw: As a container reads them; copied, since mapped files are read-only.
        dtype: safetensors' name; U8 stands for E8M0, as ModelOpt stores MX scales.
        xp: numpy or torch.

    Raises:
        ValueError: `dtype` is not a floating-point one.
    """
    if dtype == "F8_E4M3":
        return lookup(E4M3, raw, xp)
    if dtype in {"F8_E8M0", "U8"}:
        return lookup(E8M0, raw, xp)
    if dtype == "BF16":
        # A BF16 is the upper half of a float32.
        return xp.asarray((raw.astype("uint32") << 16).view("float32"))
    if dtype in {"F16", "F32", "F64"}:
        return xp.asarray(raw.astype("float32"))
    raise ValueError(f"{dtype} is not a floating-point dtype")
