"""What a compressed-tensors configuration declares.

Source: https://github.com/vllm-project/compressed-tensors (`quantization/quant_config.py`,
`quantization/quant_args.py`, `config/base.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from gate.checkpoint import Checkpoint
from gate.formats.compressed_tensors_layout import LAYOUTS, Layout
from gate.quantization import Scheme

LEGACY = frozenset({"sparse-bitmask", "sparse-24-bitmask", "marlin-24"})
"""Formats that no current version writes; their layouts are not described."""
NAMES: Mapping[str, frozenset[str]] = {
    "format": LEGACY | LAYOUTS.keys() | {"dense", "fakequant", "mixed-precision"},
    "type": frozenset({"int", "float"}),
    "strategy": frozenset(
        {"tensor", "channel", "group", "block", "token", "tensor_group", "attn_head"}
    ),
    "actorder": frozenset({"weight", "static", "group", "dynamic"}),
    "quantization_status": frozenset(
        {"initialized", "calibration", "frozen", "compressed", "decompressed"}
    ),
}
"""Field to the names that it may hold; in schemes, case does not matter."""
ARGUMENTS = ("weights", "input_activations", "output_activations")
MOST = 2**31
"""A size beyond is absurd."""


@dataclass(frozen=True)
class Group:
    """One of `config_groups`.

    Attributes:
        algo: What its weights are, for people: `pack-quantized W4A16 g128`.
        targets: As written.
        layout: How its layers are stored; None where that is not described.
        quantizes: Whether it is about weights at all.
    """

    algo: str
    targets: tuple[str, ...]
    layout: Layout | None
    num_bits: int | None
    quantizes: bool


@dataclass(frozen=True)
class Config:
    """The whole declaration; values of a wrong type count as absent.

    Attributes:
        kv_cache: `FP8` where the cache has calibrated FP8 scales.
        transformed: Whether runtimes rotate what flows between the layers.
        unknown: JSON pointer to every name that no version of the format has.
    """

    groups: tuple[Group, ...]
    ignore: tuple[str, ...]
    kv_cache: str | None
    transformed: bool
    unknown: Mapping[str, str]


def declared(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], str] | None:
    """The declaration and its JSON pointer in config.json; None where there is none."""
    found = checkpoint.quantization_config
    if found is not None:
        method = found.get("quant_method")
        own = method is None and isinstance(found.get("config_groups"), Mapping)
        return (found, checkpoint.quantization_pointer) if own or method == METHOD else None
    for config, pointer in ((checkpoint.config, ""), (checkpoint.text_config, "/text_config")):
        # Its name until version 0.6.
        found = config.get("compression_config")
        if isinstance(found, Mapping):
            return found, f"{pointer}/compression_config"
    return None


METHOD = "compressed-tensors"


def read(config: Mapping[str, Any], pointer: str) -> Config:
    """Read what `declared` found."""
    groups = config.get("config_groups")
    entries = dict(_entries(groups if isinstance(groups, Mapping) else {}))
    sparsity = config.get("sparsity_config")
    sparse = sparsity.get("format") if isinstance(sparsity, Mapping) else None
    default = _text(config.get("format"))
    if isinstance(sparse, str) and sparse in LEGACY:
        default = sparse
        entries = entries or {"": {"targets": ["Linear"], "weights": {"num_bits": None}}}
    return Config(
        groups=tuple(_group(entry, default) for entry in entries.values()),
        ignore=_strings(config.get("ignore")),
        kv_cache=_kv_cache(config.get("kv_cache_scheme")),
        transformed=bool(config.get("transform_config")),
        unknown=dict(_unknown(config, entries, pointer)),
    )


def _entries(groups: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every group."""
    for name, entry in groups.items():
        if isinstance(entry, list):
            # The name is a preset's. Exporters write out what it stands for, so none is known here.
            yield name, {"targets": entry, "weights": {"num_bits": None}}
        elif isinstance(entry, Mapping):
            yield name, entry


def _group(entry: Mapping[str, Any], default: str | None) -> Group:
    weights, inputs = entry.get("weights"), entry.get("input_activations")
    scheme = _scheme(weights) if isinstance(weights, Mapping) else None
    input_scheme = _scheme(inputs) if isinstance(inputs, Mapping) else None
    layout, name = None, default
    if default not in LEGACY:
        name = _text(entry.get("format")) or default
        if name in (None, "mixed-precision") and scheme:
            name = _inferred(scheme, input_scheme)
        known = isinstance(inputs, Mapping) == (input_scheme is not None)
        local = isinstance(inputs, Mapping) and inputs.get("dynamic") == "local"
        layout = _layout(name, scheme, input_scheme, local) if known else None
    return Group(
        algo=_algo(name, scheme, input_scheme),
        targets=_strings(entry.get("targets")),
        layout=layout,
        num_bits=scheme.num_bits if scheme else None,
        quantizes=isinstance(weights, Mapping),
    )


def _layout(
    name: str | None, scheme: Scheme | None, input_scheme: Scheme | None, local: bool
) -> Layout | None:
    """None for a format that is not described, or that does not store such a scheme."""
    if name is None or scheme is None or name not in LAYOUTS:
        return None
    stored = LAYOUTS[name].stores(scheme)
    return Layout(name, scheme, input_scheme, local) if stored else None


def _inferred(scheme: Scheme, input_scheme: Scheme | None) -> str:
    """The format that the library picks where none is named."""
    by_bits = {4: "mxfp4-pack-quantized", 6: "mxfp6-pack-quantized", 8: "mxfp8-quantized"}
    if scheme.type == "float" and scheme.group_size == 32 and scheme.num_bits in by_bits:
        return by_bits[scheme.num_bits]
    if scheme.type == "float":
        return "nvfp4-pack-quantized" if scheme.num_bits == 4 else "float-quantized"
    return "int-quantized" if input_scheme else "pack-quantized"


def _algo(name: str | None, scheme: Scheme | None, input_scheme: Scheme | None) -> str:
    label = name or METHOD
    if scheme is None:
        return f"{label} of an unknown scheme"
    across: dict[str, str] = {"group": f"g{scheme.group_size}"}
    across["tensor_group"] = across["group"]
    if scheme.block_structure:
        across["block"] = "{}x{}".format(*scheme.block_structure)
    bits = f"W{scheme.num_bits}A{input_scheme.num_bits if input_scheme else 16}"
    asymmetric = "" if scheme.symmetric else " asym"
    return f"{label} {bits} {across.get(scheme.strategy, scheme.strategy)}{asymmetric}"


def _scheme(args: Mapping[str, Any]) -> Scheme | None:
    """None where the arguments make no sense; defaults are the library's."""
    bits, size = _integer(args.get("num_bits", 8)), _integer(args.get("group_size"))
    kind, strategy = _lower(args.get("type", "int")), _lower(args.get("strategy"))
    if strategy is None and args.get("strategy") is None:
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    block = _block(args.get("block_structure"))
    order = _lower(args.get("actorder"))
    if (
        bits is None
        or not 1 <= bits <= 16
        or kind not in NAMES["type"]
        or strategy not in NAMES["strategy"] - {"attn_head"}
        or (strategy in ("group", "tensor_group") and not (size and 0 < size < MOST))
        or (strategy == "block" and block is None)
        or (order is not None and order not in NAMES["actorder"])
    ):
        return None
    return Scheme(
        num_bits=bits,
        type=cast(Literal["int", "float"], kind),
        strategy=cast(
            Literal["tensor", "channel", "group", "tensor_group", "block", "token"], strategy
        ),
        group_size=size if strategy in ("group", "tensor_group") else None,
        block_structure=block if strategy == "block" else None,
        symmetric=args.get("symmetric", True) is not False,
        dynamic=args.get("dynamic") in (True, "local"),
        # True was the first name of what is now called group.
        actorder="group" if order == "dynamic" or args.get("actorder") is True else order,
    )


def _kv_cache(args: object) -> str | None:
    scheme = _scheme(args) if isinstance(args, Mapping) else None
    calibrated = scheme and (scheme.type, scheme.num_bits, scheme.dynamic) == ("float", 8, False)
    return "FP8" if calibrated else None


def _unknown(
    config: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], pointer: str
) -> Iterator[tuple[str, str]]:
    """Pointer and content of every name that does not exist."""
    yield from _unknown_names(config, pointer, ("format", "quantization_status"))
    kv_cache = config.get("kv_cache_scheme")
    if isinstance(kv_cache, Mapping):
        yield from _unknown_names(kv_cache, f"{pointer}/kv_cache_scheme", ("type", "strategy"))
    for name, entry in entries.items():
        own = f"{pointer}/config_groups/{name.replace('~', '~0').replace('/', '~1')}"
        yield from _unknown_names(entry, own, ("format",))
        for part in ARGUMENTS:
            args = entry.get(part)
            if isinstance(args, Mapping):
                yield from _unknown_names(args, f"{own}/{part}", ("type", "strategy", "actorder"))


def _unknown_names(
    holder: Mapping[str, Any], pointer: str, fields: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for name in fields:
        value = holder.get(name)
        if isinstance(value, str) and value.lower() not in NAMES[name]:
            yield f"{pointer}/{name}", value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _lower(value: object) -> str | None:
    return value.lower() if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    """The library reads digits in quotes as well."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _block(value: object) -> tuple[int, int] | None:
    """[rows, columns], or the older `128x128`."""
    parts = value.split("x") if isinstance(value, str) else value
    sizes = [_integer(part) for part in parts] if isinstance(parts, list) else []
    if len(sizes) != 2 or any(size is None or not 0 < size < MOST for size in sizes):
        return None
    return cast(tuple[int, int], tuple(sizes))


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
