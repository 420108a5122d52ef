"""What ModelOpt's configuration declares: both on-disk shapes, and which modules it excludes.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/convert_hf_config.py`).
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from gate.quantization import Declaration

MIXED = "MIXED_PRECISION"

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


MAX_NAME = 400
"""Characters of a pattern, or of a module's name held against an expression; longer never match."""
MAX_EXPRESSIONS = 1024
"""Patterns beyond names and prefixes that are used: public checkpoints have at most five."""

DIGITS = r"(\\d|\[0-9\]|\[\^\\?\.\])\+"
"""In an expression: a run of digits, or of anything up to the next dot."""
WILD = r"(?<!\\)\.([*+])\??"
"""In an expression: a run of anything."""


class Exclusions:
    """Which modules a list of exclusions names, themselves or by an ancestor.

    Entries are glob patterns, `re:` entries regular expressions: the reading that accepts every
    public checkpoint. The patterns are untrusted, so each takes time linear in the name's length,
    and an expression for which that cannot be promised matches nothing.

    Source: https://github.com/NVIDIA/TensorRT-LLM
    (`QuantConfig.is_module_excluded_from_quantization`).
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        entries = [pattern for pattern in patterns if len(pattern) <= MAX_NAME]
        expressions = [entry[3:] for entry in entries if entry.startswith("re:")]
        globs = {entry for entry in entries if not entry.startswith("re:")}
        # `experts.*` also stands for `experts` itself.
        globs |= {glob[:-2] for glob in globs if glob.endswith(".*")}
        self._exact = {glob for glob in globs if not re.search(r"[*?\[]", glob)}
        self._prefixes = {
            glob[:-1]
            for glob in globs
            if glob.endswith("*") and not re.search(r"[*?\[]", glob[:-1])
        }
        self._lengths = {len(prefix) for prefix in self._prefixes}
        others = [glob for glob in globs - self._exact if glob[:-1] not in self._prefixes]
        compiled = [_compiled(expression) for expression in expressions[:MAX_EXPRESSIONS]]
        compiled += [
            re.compile(fnmatch.translate(glob)) for glob in sorted(others)[:MAX_EXPRESSIONS]
        ]
        self._expressions = [expression for expression in compiled if expression]
        # Experts by the thousand share their ancestors.
        self._cached = lru_cache(maxsize=1 << 16)(self._matches)

    def __contains__(self, module: str) -> bool:
        parts = module.split(".")
        return any(self._cached(".".join(parts[:end])) for end in range(len(parts), 0, -1))

    def _matches(self, name: str) -> bool:
        if name in self._exact or any(name[:end] in self._prefixes for end in self._lengths):
            return True
        if len(name) > MAX_NAME:
            return False
        return any(expression.fullmatch(name) for expression in self._expressions)


def _compiled(expression: str) -> re.Pattern[str] | None:
    """`expression` so compiled that it cannot run away; None where it could.

    The piece between two `.*` is matched where it first fits and never tried elsewhere: enough,
    since the next `.*` makes up the difference. Within a piece only digits, or what stands
    between two dots, may repeat, and few choices may be open.
    """
    expression = expression.removeprefix("^").removesuffix("$")
    pieces = re.sub(WILD, "\0", expression).split("\0")
    gaps = re.findall(WILD, expression)
    if not all(_is_tame(piece) for piece in pieces):
        return None
    first, *rest = (re.sub(DIGITS, r"\1++", piece) for piece in pieces)
    joined = f"(?:{first})"
    for number, (gap, piece) in enumerate(zip(gaps, rest, strict=True), start=1):
        last = number == len(gaps)
        joined += f".{gap}(?:{piece})" if last else f"(?>.{gap}?(?:{piece}))"
    try:
        return re.compile(joined, re.DOTALL)
    except (re.error, RecursionError, OverflowError):
        return None


def _is_tame(piece: str) -> bool:
    """Whether a piece of an expression stands for itself and repeats nothing at length."""
    try:
        re.compile(piece)
    except (re.error, RecursionError, OverflowError):
        return False
    bare = re.sub(rf"{DIGITS}|\\.", "", piece)
    outside = re.sub(r"\([^()]*\)", "", bare)
    optional = bare.count("?") - bare.count("(?:")
    return (
        not re.search(r"[*+{]|\(\?(?!:)", bare)
        and "|" not in outside
        and bare.count("|") <= 128
        and bare.count("(") <= 2
        and optional <= 2
    )
