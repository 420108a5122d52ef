"""NVIDIA ModelOpt's unified Hugging Face export (FP8, NVFP4, and mixtures of them).

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`,
`convert_hf_config.py`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gate.checkpoint import Checkpoint, TensorInfo
from gate.errors import UnknownFormatError
from gate.quantization import (
    E2M1_PAIRS,
    E4M3,
    FLOAT_DTYPES,
    QuantizedLayer,
    Role,
    Scheme,
    TensorSpec,
    decode_float,
    lookup,
    matches_module,
)

SUFFIXES = {
    "weight": Role.WEIGHT,
    "weight_scale": Role.WEIGHT_SCALE,
    "weight_scale_2": Role.WEIGHT_GLOBAL_SCALE,
    "input_scale": Role.INPUT_SCALE,
    "pre_quant_scale": Role.PRE_QUANT_SCALE,
}
STORED_AS = {role: suffix for suffix, role in SUFFIXES.items()}
"""The name under which ModelOpt stores each role."""
KV_SUFFIXES = frozenset({"k_scale", "v_scale", "kv_scale", "k_bias", "v_bias"})

NOT_QUANTIZED = re.compile(
    r"(^|\.)(gate|router|shared_expert_gate|visual|vision_tower|vision_model)(\.|$)"
    r"|(^|[._])(embed\w*|embeddings?|wte|wpe|\w*norm\w*|ln_\w+|conv\w*|rotary\w*)(\.|$)"
)
"""Modules that runtimes keep in high precision whether or not they are excluded."""

SCALAR = ((), (1,))
Decoder = Callable[[QuantizedLayer, Any], Any]


@dataclass(frozen=True)
class Algorithm:
    """What one `quant_algo` stores.

    Attributes:
        scheme: The weight's; None where the layout is not described yet.
        input_scheme: The input's; None for weight-only.
        weight_bits: Width of a weight.
        decode: None where there is no decoder yet.
    """

    weight_bits: int
    scheme: Scheme | None = None
    input_scheme: Scheme | None = None
    decode: Decoder | None = None


def _per_tensor(layer: QuantizedLayer, xp: Any) -> Any:
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape(())


def _per_channel(layer: QuantizedLayer, xp: Any) -> Any:
    return _codes(layer, xp) * _scale(layer, Role.WEIGHT_SCALE, xp).reshape((-1, 1))


def _per_block(layer: QuantizedLayer, xp: Any) -> Any:
    """Blocks at the lower and right edge may be partial."""
    codes = _codes(layer, xp)
    rows, columns = layer.scheme.block_structure  # type: ignore[union-attr, misc]
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale.reshape((-(-codes.shape[0] // rows), -(-codes.shape[1] // columns)))
    row_block = xp.arange(codes.shape[0]) // rows
    column_block = xp.arange(codes.shape[1]) // columns
    return codes * scale[row_block][:, column_block]


def _nvfp4(layer: QuantizedLayer, xp: Any) -> Any:
    """Two-level scales: E4M3 per group times one float32 for the tensor."""
    packed = layer.read(Role.WEIGHT)
    scale = _scale(layer, Role.WEIGHT_SCALE, xp)
    scale = scale * _scale(layer, Role.WEIGHT_GLOBAL_SCALE, xp).reshape(())
    values = lookup(E2M1_PAIRS, packed, xp).reshape((*scale.shape, -1))
    return (values * scale[..., None]).reshape((packed.shape[0], 2 * packed.shape[1]))


def _codes(layer: QuantizedLayer, xp: Any) -> Any:
    return lookup(E4M3, layer.read(Role.WEIGHT), xp)


def _scale(layer: QuantizedLayer, role: Role, xp: Any) -> Any:
    return decode_float(layer.read(role), layer.tensors[role].dtype, xp)


_FP8 = Scheme(8, "float", "tensor")
_FP8_PER_TOKEN = Scheme(8, "float", "token", dynamic=True)
_NVFP4 = Scheme(4, "float", "tensor_group", group_size=16)

ALGORITHMS: Mapping[str, Algorithm] = {
    "FP8": Algorithm(8, _FP8, _FP8, _per_tensor),
    "FP8_PER_CHANNEL_PER_TOKEN": Algorithm(
        8, Scheme(8, "float", "channel"), _FP8_PER_TOKEN, _per_channel
    ),
    "FP8_PB_WO": Algorithm(
        8, Scheme(8, "float", "block", block_structure=(128, 128)), None, _per_block
    ),
    "NVFP4": Algorithm(4, _NVFP4, replace(_NVFP4, dynamic=True), _nvfp4),
    "W4A16_NVFP4": Algorithm(4, _NVFP4, None, _nvfp4),
    "FP8_PB_REAL": Algorithm(8),
    "FP8_PB": Algorithm(8),
    "NVFP4_AWQ": Algorithm(4),
    "NVFP4_SVD": Algorithm(4),
    "W4A8_NVFP4_FP8": Algorithm(4),
    "W4A8_MXFP4_FP8": Algorithm(4),
    "W4A8_MXFP4_MXFP8": Algorithm(4),
    "W4A16_MXFP4": Algorithm(4),
    "MXFP4": Algorithm(4),
    "MXFP8": Algorithm(8),
    "W4A16_AWQ": Algorithm(4),
    "W4A8_AWQ": Algorithm(4),
    "W8A16": Algorithm(8),
    "W8A8_SQ_PER_CHANNEL": Algorithm(8),
}
"""Every known `quant_algo`, upper case. Source: ModelOpt 0.47 and TensorRT-LLM `QuantAlgo`."""

MIXED = "MIXED_PRECISION"
KV_ALGORITHMS = frozenset({"FP8", "INT8", "NVFP4", "NVFP4_AFFINE"})


@dataclass(frozen=True)
class Declaration:
    """What one configuration file says, whichever of the two on-disk shapes it has.

    Attributes:
        file: Where it was read.
        quant_algo: As written; None where nothing is quantized.
        exclude_modules: Patterns of modules that stay unquantized.
        quantized_layers: Module, or parent of modules, to its own declaration.
    """

    file: str
    quant_algo: str | None
    kv_cache_quant_algo: str | None
    group_size: int | None
    exclude_modules: tuple[str, ...] | None
    quantized_layers: Mapping[str, Mapping[str, Any]] | None


def declarations(checkpoint: Checkpoint) -> tuple[Declaration, ...]:
    """What config.json and hf_quant_config.json declare, in the order runtimes read them.

    Source: vLLM and SGLang prefer config.json, TensorRT-LLM hf_quant_config.json.
    """
    found = []
    in_config = checkpoint.quantization_config
    if in_config is not None and _is_modelopt(in_config):
        found.append(_declaration("config.json", in_config))
    if checkpoint.hf_quant_config is not None:
        found.append(_declaration("hf_quant_config.json", checkpoint.hf_quant_config))
    return tuple(found)


def _is_modelopt(config: Mapping[str, Any]) -> bool:
    producer = config.get("producer")
    name = producer.get("name") if isinstance(producer, Mapping) else None
    method = config.get("quant_method")
    nested = isinstance(config.get("quantization"), Mapping)
    return method in {"modelopt", "modelopt_fp4", "modelopt_mixed"} or (
        method is None and (name == "modelopt" or nested or "quant_algo" in config)
    )


def _declaration(file: str, config: Mapping[str, Any]) -> Declaration:
    nested = config.get("quantization")
    body = nested if isinstance(nested, Mapping) else config
    algo, group_size = body.get("quant_algo"), body.get("group_size")
    exclude = body.get("exclude_modules", body.get("ignore"))
    layers = body.get("quantized_layers")
    return Declaration(
        file=file,
        quant_algo=algo if isinstance(algo, str) else None,
        kv_cache_quant_algo=_kv_algo(body),
        group_size=group_size if type(group_size) is int else _config_groups_size(body),
        exclude_modules=_strings(exclude),
        quantized_layers={name: entry for name, entry in layers.items() if isinstance(entry, Mapping)}
        if isinstance(layers, Mapping)
        else None,
    )


def _strings(value: Any) -> tuple[str, ...] | None:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else None


def _kv_algo(body: Mapping[str, Any]) -> str | None:
    algo = body.get("kv_cache_quant_algo", body.get("kv_cache_scheme"))
    if isinstance(algo, Mapping):
        return "FP8" if (algo.get("num_bits"), algo.get("type")) == (8, "float") else None
    return algo if isinstance(algo, str) else None


def _config_groups_size(body: Mapping[str, Any]) -> int | None:
    groups = body.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        return None
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, Mapping) else None
    size = weights.get("group_size") if isinstance(weights, Mapping) else None
    return size if type(size) is int else None


def algorithm(name: str | None) -> Algorithm | None:
    """The algorithm of that name in any case; None if there is no such."""
    return ALGORITHMS.get(name.upper()) if name else None


class ModelOpt:
    """The format of checkpoints with a ModelOpt declaration."""

    name = "modelopt"

    def matches(self, checkpoint: Checkpoint) -> bool:
        """A ModelOpt declaration that quantizes something."""
        return any(found.quant_algo for found in declarations(checkpoint))

    def algorithms(self, checkpoint: Checkpoint) -> Mapping[str, bool]:
        """Declared algorithms, per layer where mixed, and whether each can be decoded."""
        names = {_effective(checkpoint).quant_algo or ""}
        if MIXED in {name.upper() for name in names}:
            layers = _effective(checkpoint).quantized_layers or {}
            names = {str(entry.get("quant_algo")) for entry in layers.values()}
        known = {name: algorithm(name) for name in names}
        return {name: algo is not None and algo.decode is not None for name, algo in known.items()}

    def weight_bits(self, checkpoint: Checkpoint) -> int | None:
        """The lowest declared weight width in bits."""
        found = [algorithm(name) for name in self.algorithms(checkpoint)]
        return min((algo.weight_bits for algo in found if algo), default=None)

    def layers(self, checkpoint: Checkpoint) -> Iterator[QuantizedLayer]:
        """See `Format.layers`."""
        declared = _effective(checkpoint)
        for module, tensors in _modules(checkpoint).items():
            algo, group_size = _declared_for(module, declared)
            marks = len(tensors) > 1 or any(i.dtype not in FLOAT_DTYPES for i in tensors.values())
            if marks or (algo and _is_linear(module, tensors)):
                yield _layer(checkpoint, module, algo, group_size, tensors)

    def is_companion(self, tensor: str) -> bool:
        """Scales, of weights and of the KV cache."""
        suffix = tensor.rpartition(".")[2]
        return (suffix in SUFFIXES and suffix != "weight") or suffix in KV_SUFFIXES

    def dequantize(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Format.dequantize`."""
        known = algorithm(layer.algo)
        if known is None or known.decode is None:
            raise UnknownFormatError(
                f"{layer.name} is stored as {layer.algo or 'an undeclared format'}, which has no decoder",
                "Judge it statically with gate lint.",
            )
        return known.decode(layer, xp)


def _effective(checkpoint: Checkpoint) -> Declaration:
    """The declaration that runtimes act on: the first file, gaps filled from the second."""
    first, *rest = (d for d in declarations(checkpoint) if d.quant_algo)
    for other in rest:
        first = replace(
            first,
            group_size=first.group_size or other.group_size,
            exclude_modules=first.exclude_modules
            if first.exclude_modules is not None
            else other.exclude_modules,
            quantized_layers=first.quantized_layers or other.quantized_layers,
        )
    return first


def _modules(checkpoint: Checkpoint) -> Mapping[str, dict[Role, TensorInfo]]:
    """Module to its tensors, for every module with a weight or a companion."""
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        module, _, suffix = name.rpartition(".")
        if suffix in SUFFIXES:
            modules[module][SUFFIXES[suffix]] = info
    return modules


def _declared_for(module: str, declared: Declaration) -> tuple[str, int | None]:
    """Algorithm ("" for none) and group size of one module."""
    if any(matches_module(module, pattern) for pattern in declared.exclude_modules or ()):
        return "", None
    if (declared.quant_algo or "").upper() != MIXED:
        return declared.quant_algo or "", declared.group_size
    layers = declared.quantized_layers or {}
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        entry = layers.get(".".join(parts[:end]))
        if entry is not None:
            size = entry.get("group_size")
            return str(entry.get("quant_algo") or ""), size if type(size) is int else None
    return "", None


def _is_linear(module: str, tensors: Mapping[Role, TensorInfo]) -> bool:
    weight = tensors.get(Role.WEIGHT)
    return weight is not None and len(weight.shape) == 2 and not NOT_QUANTIZED.search(module)


def _layer(
    checkpoint: Checkpoint,
    module: str,
    algo: str,
    group_size: int | None,
    tensors: Mapping[Role, TensorInfo],
) -> QuantizedLayer:
    known = algorithm(algo)
    scheme, input_scheme = (known.scheme, known.input_scheme) if known else (None, None)
    if group_size and scheme and scheme.group_size:
        scheme = replace(scheme, group_size=group_size)
    return QuantizedLayer(
        name=module,
        algo=algo,
        scheme=scheme,
        input_scheme=input_scheme,
        tensors=tensors,
        expected=_expected(scheme, input_scheme, tensors.get(Role.WEIGHT)) if scheme else {},
        declared=bool(algo),
        checkpoint=checkpoint,
    )


def _expected(
    scheme: Scheme, input_scheme: Scheme | None, weight: TensorInfo | None
) -> Mapping[Role, TensorSpec]:
    """What a layer of this scheme stores; scale shapes follow from the weight's."""
    packed = frozenset({"U8"} if scheme.num_bits == 4 else {"F8_E4M3"})
    expected = {
        Role.WEIGHT: TensorSpec(packed),
        Role.WEIGHT_SCALE: TensorSpec(
            frozenset({"F8_E4M3"} if scheme.strategy == "tensor_group" else {"F32"}),
            _scale_shapes(scheme, weight),
        ),
    }
    if scheme.strategy == "tensor_group":
        expected[Role.WEIGHT_GLOBAL_SCALE] = TensorSpec(frozenset({"F32"}), SCALAR)
    if input_scheme and (not input_scheme.dynamic or input_scheme.strategy == "tensor_group"):
        expected[Role.INPUT_SCALE] = TensorSpec(frozenset({"F32"}), SCALAR)
    return expected


def _scale_shapes(scheme: Scheme, weight: TensorInfo | None) -> tuple[tuple[int, ...], ...] | None:
    if scheme.strategy == "tensor":
        return SCALAR
    if weight is None or len(weight.shape) != 2:
        return None
    rows, columns = weight.shape
    if scheme.strategy == "channel":
        return ((rows,), (rows, 1))
    if scheme.block_structure:
        down, across = -(-rows // scheme.block_structure[0]), -(-columns // scheme.block_structure[1])
        return ((down, 1, across, 1), (down, across))
    assert scheme.group_size, "a grouped scheme has a group size"
    return ((rows, columns * 2 // scheme.group_size),)
