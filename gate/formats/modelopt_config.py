"""What ModelOpt's configuration declares: both on-disk shapes, and which modules it excludes.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/convert_hf_config.py`).
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from gate.architecture import text_name
from gate.patterns import Exclusions
from gate.quantization import MIXED, Declaration

ALGORITHM_NAMES = frozenset({
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "FP8_PB_REAL", "FP8_PB", "FP8_BLOCK_SCALES",
    "NVFP4", "W4A16_NVFP4", "NVFP4_AWQ", "NVFP4_SVD", "W4A8_NVFP4_FP8",
    "MXFP4", "W4A8_MXFP4_FP8", "W4A8_MXFP4_MXFP8", "W4A16_MXFP4", "MXFP8",
    "W4A16", "W4A16_AWQ", "W4A8_AWQ", "W4A16_GPTQ", "W4A8_QSERVE_PER_GROUP",
    "W4A8_QSERVE_PER_CHANNEL", "W8A16", "W8A16_GPTQ", "W8A8_SQ_PER_CHANNEL",
    "W8A8_SQ_PER_TENSOR_PLUGIN", "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN", "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    MIXED, "NO_QUANT",
})  # fmt: skip
"""Every `quant_algo`, upper case. Source: ModelOpt 0.47 and TensorRT-LLM's `QuantAlgo`."""

KV_ALGORITHM_NAMES = frozenset({"FP8", "INT8", "NVFP4", "NVFP4_AFFINE"})
"""Every `kv_cache_quant_algo`. Source: ModelOpt 0.47 (`modelopt/torch/export/model_config.py`)."""


def is_modelopt(config: Mapping[str, Any]) -> bool:
    """Whether config.json's quantization_config was written by ModelOpt.

    A checkpoint may name another method for its other layers and ModelOpt's algorithm beside it.
    """
    method = config.get("quant_method")
    if isinstance(config.get("quant_algo"), str):
        return True
    producer = config.get("producer")
    name = producer.get("name") if isinstance(producer, Mapping) else None
    nested = isinstance(config.get("quantization"), Mapping)
    return is_modelopt_method(method) or (method is None and (name == "modelopt" or nested))


def is_modelopt_method(method: object) -> bool:
    """Whether a `quant_method` is one of ModelOpt's."""
    return isinstance(method, str) and method.startswith("modelopt")


def declaration(file: str, config: Mapping[str, Any], pointer: str) -> Declaration:
    """Read either shape; a value of a wrong type counts as absent.

    Args:
        file: Where it was read.
        config: What was read.
        pointer: JSON pointer of `config` in the file.

    Source: vLLM and TensorRT-LLM tell the shapes apart by the key `quantization`.
    """
    nested = config.get("quantization")
    body = nested if isinstance(nested, Mapping) else config
    pointer += "/quantization" if body is nested else ""
    algo, group_size = body.get("quant_algo"), body.get("group_size")
    layers = body.get("quantized_layers")
    layers = layers if isinstance(layers, Mapping) else None
    return Declaration(
        file=file,
        quant_algo=algo if isinstance(algo, str) else None,
        kv_cache_quant_algo=_kv_algo(body),
        group_size=_positive(group_size) or _config_groups_size(body),
        exclude_modules=_strings(body.get("exclude_modules", body.get("ignore"))),
        quantized_layers=None
        if layers is None
        else {name: entry for name, entry in layers.items() if isinstance(entry, Mapping)},
        unknown=dict(_unknown(body, pointer)),
    )


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _strings(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(item for item in value if isinstance(item, str))


def _kv_algo(body: Mapping[str, Any]) -> str | None:
    algo = body.get("kv_cache_quant_algo", body.get("kv_cache_scheme"))
    if isinstance(algo, Mapping):
        return "FP8" if (algo.get("num_bits"), algo.get("type")) == (8, "float") else None
    return algo if isinstance(algo, str) else None


def _config_groups_size(body: Mapping[str, Any]) -> int | None:
    """The group size of the only config group."""
    groups = body.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        return None
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, Mapping) else None
    return _positive(weights.get("group_size")) if isinstance(weights, Mapping) else None


def _unknown(body: Mapping[str, Any], pointer: str) -> Iterator[tuple[str, str]]:
    """Pointer and name of every algorithm that does not exist."""
    kv = "kv_cache_quant_algo" if "kv_cache_quant_algo" in body else "kv_cache_scheme"
    algo, kv_algo = body.get("quant_algo"), body.get(kv)
    if isinstance(algo, str) and algo.upper() not in ALGORITHM_NAMES:
        yield f"{pointer}/quant_algo", algo
    if isinstance(kv_algo, str) and kv_algo.upper() not in KV_ALGORITHM_NAMES:
        yield f"{pointer}/{kv}", kv_algo
    layers = body.get("quantized_layers")
    for module, entry in layers.items() if isinstance(layers, Mapping) else ():
        algo = entry.get("quant_algo") if isinstance(entry, Mapping) else None
        if isinstance(algo, str) and algo.upper() not in ALGORITHM_NAMES - {MIXED}:
            escaped = module.replace("~", "~0").replace("/", "~1")
            yield f"{pointer}/quantized_layers/{escaped}/quant_algo", algo


class Modules:
    """What a declaration says of each module.

    Multimodal models are spelled in two ways, which runtimes take for one another.

    Source: https://github.com/vllm-project/vllm (`quantization/modelopt.py`).
    """

    def __init__(self, declared: Declaration) -> None:
        patterns = declared.exclude_modules or ()
        self._excluded = Exclusions(dict.fromkeys([*patterns, *map(text_name, patterns)]))
        self._default = declared.quant_algo or "", declared.group_size
        self._layers: dict[str, tuple[str, int | None]] | None = None
        if self._default[0].upper() == MIXED:
            entries = [
                (name, (_string(entry.get("quant_algo")), _positive(entry.get("group_size"))))
                for name, entry in (declared.quantized_layers or {}).items()
            ]
            self._layers = {text_name(name): entry for name, entry in entries} | dict(entries)
        self._of_parent = lru_cache(maxsize=1 << 16)(self._listed)

    def of(self, module: str) -> tuple[str, int | None]:
        """Its algorithm, "" if it is to stay unquantized, and its group size."""
        name = text_name(module)
        if module in self._excluded or (name != module and name in self._excluded):
            return "", None
        if self._layers is None:
            return self._default
        found = self._layers.get(module) or self._layers.get(name)
        return found or self._of_parent(name.rpartition(".")[0])

    def _listed(self, module: str) -> tuple[str, int | None]:
        """The entry of the module, or of the nearest above it."""
        layers = self._layers or {}
        while module:
            if found := layers.get(module):
                return found
            module = module.rpartition(".")[0]
        return "", None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
