"""What quantization means here: the contract `Format`, and the layers that it describes.

One description of a format serves the rules, the size accounting and the evaluation.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gate.codes import ScaleValues
from gate.errors import SettingsError, UnknownFormatError

if TYPE_CHECKING:
    from gate.checkpoint import Checkpoint, TensorInfo

MIXED = "MIXED_PRECISION"
"""The algorithm of a declaration that names one for each layer."""

FLOAT_DTYPES = frozenset({"BF16", "F16", "F32", "F64"})
"""A linear weight of any other dtype is quantized."""


class Role(StrEnum):
    """What a tensor is to its layer. Source: compressed-tensors' parameter names, where it has one.

    A global scale multiplies, as ModelOpt's `weight_scale_2` does; the divisors that
    compressed-tensors calls global scales are `*_GLOBAL_DIVISOR`. `WEIGHT_SCALE_CODES` are scales
    that are quantized themselves.
    """

    WEIGHT = "weight"
    WEIGHT_SCALE = "weight_scale"
    WEIGHT_SCALE_CODES = "weight_scale_codes"
    WEIGHT_GLOBAL_SCALE = "weight_global_scale"
    WEIGHT_GLOBAL_DIVISOR = "weight_global_divisor"
    WEIGHT_ZERO_POINT = "weight_zero_point"
    WEIGHT_G_IDX = "weight_g_idx"
    WEIGHT_SHAPE = "weight_shape"
    INPUT_SCALE = "input_scale"
    INPUT_GLOBAL_DIVISOR = "input_global_divisor"
    INPUT_ZERO_POINT = "input_zero_point"
    PRE_QUANT_SCALE = "pre_quant_scale"
    NESTED_SCALE = "nested_scale"
    QUANT_MAP = "quant_map"
    NESTED_QUANT_MAP = "nested_quant_map"
    QUANT_STATE = "quant_state"
    LORA_A = "lora_a"
    LORA_B = "lora_b"

    # An enumeration's own hash is written in Python, and every layer's tensors are kept by role.
    __hash__ = str.__hash__


SCALES = frozenset(
    {
        Role.WEIGHT_SCALE,
        Role.WEIGHT_GLOBAL_SCALE,
        Role.WEIGHT_GLOBAL_DIVISOR,
        Role.INPUT_SCALE,
        Role.INPUT_GLOBAL_DIVISOR,
        Role.PRE_QUANT_SCALE,
        Role.NESTED_SCALE,
    }
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
        outlier: Inputs that hold a value of this size stay unquantized; None for no exception.
    """

    num_bits: int
    type: Literal["float", "int"]
    strategy: Literal["tensor", "channel", "group", "tensor_group", "block", "token"]
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None
    symmetric: bool = True
    dynamic: bool = False
    actorder: str | None = None
    outlier: float | None = None


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of a layer has to be.

    Attributes:
        shapes: Every accepted shape, `()` among them for a scalar; None where any will do; empty
            where none can be right, because a group does not divide its row.
        stored_as: Its name on disk, below the module's.
        optional: Whether the layer may do without it.
    """

    dtypes: frozenset[str]
    shapes: tuple[tuple[int, ...], ...] | None = None
    stored_as: str = ""
    optional: bool = False


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
        shape: Of the weight as the model counts it: (out_features, in_features), experts first
            where one tensor holds them all; None where it cannot be told.
        transposed: Whether the model's parameter is (in_features, out_features).
    """

    name: str
    algo: str
    scheme: Scheme | None
    input_scheme: Scheme | None
    tensors: "Mapping[Role, TensorInfo]"
    expected: Mapping[Role, TensorSpec]
    declared: bool
    checkpoint: "Checkpoint" = field(repr=False, compare=False)
    shape: tuple[int, ...] | None = None
    transposed: bool = False

    def read(self, role: Role) -> Any:
        """Raw codes of one tensor, as numpy; see `Container.read`."""
        return self.checkpoint.read(self.tensors[role])

    @cached_property
    def scales(self) -> Mapping[Role, ScaleValues]:
        """What each scale holds; read once."""
        return {
            role: ScaleValues(self.checkpoint, info)
            for role, info in self.tensors.items()
            if role in SCALES and info.dtype in SCALE_DTYPES
        }

    @cached_property
    def alike(self) -> Hashable:
        """What two layers share that are declared and stored in the same way.

        Formats share what they expect among such layers; where one does not, nothing is alike.
        """
        stored = tuple((role, info.dtype, info.shape) for role, info in self.tensors.items())
        leaf = self.name.rpartition(".")[2]
        return leaf, self.algo, self.declared, self.shape, id(self.expected), stored

    def stored_name(self, role: Role) -> str:
        """The name under which a tensor would be stored."""
        spec = self.expected.get(role)
        name = spec.stored_as if spec and spec.stored_as else role.value
        # Where one tensor holds all experts, the suffix follows the weight's own name.
        return f"{self.name}{name}" if name.startswith("_") else f"{self.name}.{name}"

    @property
    def parameter(self) -> str:
        """The model's parameter that the weight is, whatever it is called when it is packed."""
        below = self.tensors[Role.WEIGHT].name.startswith(f"{self.name}.")
        return f"{self.name}.weight" if below else self.name

    @property
    def packed(self) -> bool:
        """Whether the stored weight itself is quantized; codes may lie in words of floats."""
        weight = self.tensors.get(Role.WEIGHT)
        codes = Role.QUANT_STATE in self.tensors
        return weight is not None and (codes or weight.dtype not in FLOAT_DTYPES)


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
    """One way of storing quantized weights.

    Attributes:
        name: As `quant_method` has it.
    """

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


def declared_method(checkpoint: "Checkpoint", form: Format | None) -> str | None:
    """How a checkpoint says that it is quantized; None for an unquantized one."""
    declared = checkpoint.quantization_config
    if form is not None:
        return form.name
    return None if declared is None else str(declared.get("quant_method", "an unnamed method"))


def require_unquantized(checkpoint: "Checkpoint", form: Format | None) -> None:
    """Refuse to quantize at load what is quantized already.

    Raises:
        SettingsError: Naming its method.
    """
    method = declared_method(checkpoint, form)
    if method is not None:
        raise SettingsError(
            f"{checkpoint.source} is stored as {method}: it cannot be quantized again at load",
            "Leave runtime_quantization out, or name the unquantized checkpoint.",
        )


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
