"""FP8 as DeepSeek stores it, in blocks, and its relatives with coarser scales.

Despite its name, `weight_scale_inv` is what a weight is multiplied with.

Source: https://github.com/huggingface/transformers (`integrations/finegrained_fp8.py`,
`integrations/fbgemm_fp8.py`) and https://github.com/vllm-project/vllm (`quantization/fp8.py`).
"""

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import E2M1_PAIRS, E4M3, decode_float, lookup
from gate.errors import UnknownFormatError
from gate.formats.block_fp8_layout import (
    COMPANIONS,
    FP4_EXPERT,
    PER_TENSOR,
    expected,
    modules,
    scale_names,
)
from gate.formats.decoding import apply, require_as_described
from gate.formats.skipped import Unconverted, convertible
from gate.quantization import (
    Declaration,
    QuantizedLayer,
    Role,
    Scheme,
)

NAMES: Mapping[str, frozenset[str]] = {
    "activation_scheme": frozenset({"dynamic", "static"}),
    "scale_fmt": frozenset({"float", "ue8m0"}),
    "expert_dtype": frozenset({"fp8", "fp4"}),
    "fmt": frozenset({"e4m3", "float8_e4m3fn"}),
}
"""Field to the names that it may hold."""


@dataclass(frozen=True)
class _Declared:
    """What the configuration says, values of a wrong type left out.

    Attributes:
        scheme: The weight's; None where its block size makes no sense.
        embeddings: How the names of embeddings end that are converted as well.
        scale_name: How most layers call their scale.
    """

    method: str
    scheme: Scheme | None
    input_scheme: Scheme
    fp4_experts: bool
    embeddings: tuple[str, ...]
    scale_name: str
    input_name: str

    def of(self, module: str) -> tuple[Scheme | None, Scheme | None]:
        """The schemes of one module's weight and of its input, which an embedding has not."""
        if self.fp4_experts and ".experts." in module:
            return FP4_EXPERT, self.input_scheme
        if self.embeddings and module.endswith(self.embeddings):
            return PER_TENSOR, None
        return self.scheme, self.input_scheme if self.scheme else None

    @cached_property
    def algo(self) -> str:
        """What reports call it."""
        if self.scheme is None:
            return f"{self.method} of an unknown block size"
        block = self.scheme.block_structure
        by = "{}x{}".format(*block) if block else self.scheme.strategy
        return f"{self.method} {by}{'' if self.input_scheme.dynamic else ' static'}"


class BlockFP8:
    """The format of checkpoints with FP8 weights in the model's own precision.

    Attributes:
        name: `fp8`, or `fbgemm_fp8` with its scales per output channel.
    """

    def __init__(self, name: str = "fp8") -> None:
        self.name = name

    def matches(self, checkpoint: Checkpoint) -> bool:
        """See `Format.matches`."""
        return (checkpoint.quantization_config or {}).get("quant_method") == self.name

    def declarations(self, checkpoint: Checkpoint) -> tuple[Declaration, ...]:
        """The names that do not exist; the rest has no likeness to ModelOpt's declarations."""
        config, pointer = checkpoint.quantization_config or {}, checkpoint.quantization_pointer
        unknown = {
            f"{pointer}/{field}": value
            for field, names in NAMES.items()
            if isinstance(value := config.get(field), str) and value.lower() not in names
        }
        return (Declaration("config.json", None, None, None, None, None, unknown),)

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """One, and that of FP4 experts."""
        declared = self._declared(checkpoint)
        experts = {f"{self.name} FP4 experts": True} if declared.fp4_experts else {}
        return {declared.algo: declared.scheme is not None} | experts

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """See `Format.weight_bits`."""
        return 4 if self._declared(checkpoint).fp4_experts else 8

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        declared, skipped = self._declared(checkpoint), self._skipped(checkpoint)
        marked, plain = modules(checkpoint)
        for module, tensors in marked.items():
            kept = skipped.surely(module)
            yield self._layer(checkpoint, module, declared, tensors, kept=kept)
        for module, info in convertible(plain, marked).items():
            if not skipped.perhaps(module):
                yield self._layer(checkpoint, module, declared, {Role.WEIGHT: info}, kept=False)

    def is_companion(self, tensor: str) -> bool:
        """See `Format.is_companion`."""
        return tensor.rpartition(".")[2] in COMPANIONS

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        scheme = layer.scheme
        if scheme is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or self.name}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        require_as_described(layer)
        stored, info = layer.read(Role.WEIGHT), layer.tensors[Role.WEIGHT_SCALE]
        if scheme is FP4_EXPERT:
            values = lookup(E2M1_PAIRS, stored.view("uint8"), xp)
            values = values.reshape((*stored.shape[:-1], -1))
        else:
            values = lookup(E4M3, stored, xp)
        scale = decode_float(layer.read(Role.WEIGHT_SCALE), info.dtype, xp)
        apply(operator.imul, values, scale, _of_halves(scheme, values.shape, info.shape), xp)
        return values

    def _declared(self, checkpoint: Checkpoint) -> _Declared:
        config = checkpoint.quantization_config or {}
        experts = config.get("expert_dtype", checkpoint.text_config.get("expert_dtype"))
        scheme = _scheme(config.get("weight_block_size"))
        if self.name == "fbgemm_fp8":
            scheme = Scheme(8, "float", "channel")
        by_block = config.get("weight_block_size") is not None
        names = scale_names(checkpoint)
        static = config.get("activation_scheme") == "static"
        return _Declared(
            method=self.name,
            scheme=scheme,
            input_scheme=_input_scheme(scheme, static=static and self.name == "fp8"),
            fp4_experts=experts == "fp4",
            embeddings=_strings(config.get("modules_to_convert")),
            scale_name=names.get(
                Role.WEIGHT_SCALE, "weight_scale_inv" if by_block else "weight_scale"
            ),
            input_name=names.get(Role.INPUT_SCALE, "input_scale"),
        )

    def _skipped(self, checkpoint: Checkpoint) -> Unconverted:
        config = checkpoint.quantization_config or {}
        keys = ("modules_to_not_convert", "ignored_layers")
        return Unconverted([name for key in keys for name in _strings(config.get(key))])

    def _layer(
        self,
        checkpoint: Checkpoint,
        module: str,
        declared: _Declared,
        tensors: Mapping[Role, TensorInfo],
        *,
        kept: bool,
    ) -> QuantizedLayer:
        scheme, input_scheme = (None, None) if kept else declared.of(module)
        weight = tensors.get(Role.WEIGHT)
        shape = weight.shape if weight else ()
        fused = module.rpartition(".")[0].endswith(".experts") and len(shape) == 3
        if scheme is FP4_EXPERT and shape:
            shape = (*shape[:-1], 2 * shape[-1])
        names = (
            ("_scale_inv", "_activation_scale")
            if fused
            else (declared.scale_name, declared.input_name)
        )
        return QuantizedLayer(
            name=module,
            algo="" if kept else declared.algo,
            scheme=scheme,
            input_scheme=input_scheme,
            tensors=tensors,
            expected=expected(scheme, not declared.input_scheme.dynamic, shape, names)
            if scheme
            else {},
            declared=not kept,
            checkpoint=checkpoint,
            shape=shape or None,
        )


def _of_halves(scheme: Scheme, weight: tuple[int, ...], scale: tuple[int, ...]) -> Scheme:
    """Experts' gate and up have blocks of their own each, however few rows they have."""
    block, rows = scheme.block_structure, weight[-2]
    if len(scale) < 3 or scale[-2] != 2 or (block and block[0] < rows):
        return scheme
    across = block[1] if block else weight[-1]
    return replace(scheme, strategy="block", block_structure=(-(-rows // 2), across))


def _input_scheme(scheme: Scheme | None, *, static: bool) -> Scheme:
    """One stored scale; else one a token, or one for each block of a token's inputs.

    Source: vLLM `Fp8LinearMethod`; transformers `finegrained_fp8_linear`, `FbgemmFp8Linear`.
    """
    if static:
        return Scheme(8, "float", "tensor")
    if scheme and scheme.block_structure:
        size = scheme.block_structure[1]
        return Scheme(8, "float", "group", group_size=size, dynamic=True)
    return Scheme(8, "float", "token", dynamic=True)


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _scheme(block_size: object) -> Scheme | None:
    """One scale a tensor without a block size; None where that makes no sense."""
    if block_size is None:
        return PER_TENSOR
    if not isinstance(block_size, list) or len(block_size) != 2:
        return None
    down, across = block_size
    if not all(type(size) is int and 0 < size < 2**31 for size in block_size):
        return None
    return Scheme(8, "float", "block", block_structure=(down, across))
