"""What GPTQ, AWQ and AutoRound declare, for the whole checkpoint and module by module."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeGuard

from gate.formats.compressed_tensors_targets import Targets
from gate.formats.skipped import SPECIAL, Unconverted
from gate.patterns import MAX_NAME, compiled
from gate.quantization import Scheme

WIDTHS = {"gptq": (2, 3, 4, 8), "gptq_v2": (2, 3, 4, 8), "auto-round": (2, 3, 4, 8), "gemm": (4,)}
"""Layout to the widths in bits for which it is described."""

LABELS = {"gemm": "AWQ", "gptq": "GPTQ", "gptq_v2": "GPTQ_V2", "auto-round": "AUTO-ROUND"}

MAX_PATTERNS = 128
"""Regular expressions of one checkpoint that are evaluated: public ones have a few dozen."""

UNQUANTIZED_BITS = 16
"""From this width on AutoRound leaves a layer, or its input, as it is."""

ROTATIONS = ("rotation", "rotation_config", "spinquant_config")
"""Keys that declare a transform of the inputs at run time (GPTQModel's, AutoRound's)."""


@dataclass(frozen=True)
class Packing:
    """How the weight of one module is packed.

    Attributes:
        layout: `gptq`, `gptq_v2`, `auto-round`, `gemm`, or another name as declared.
        bits: Width of a weight; None where it cannot be told.
        group_size: Inputs that share a scale; None for the whole row.
        desc_act: Whether the inputs were quantized in the order of their activations.
    """

    layout: str
    bits: int | None
    group_size: int | None
    symmetric: bool
    desc_act: bool

    @cached_property
    def label(self) -> str:
        """What reports call it."""
        words = [LABELS.get(self.layout, self.layout.upper()[:40])]
        words.append(f"W{self.bits}" if self.bits else "of unknown width")
        words.append(f"g{self.group_size}" if self.group_size else "per-channel")
        words += ["desc_act"] if self.desc_act else []
        words += [] if self.symmetric else ["asym"]
        return " ".join(words)

    @cached_property
    def scheme(self) -> Scheme | None:
        """None where the layout is not described."""
        if self.bits is None or self.bits not in WIDTHS.get(self.layout, ()):
            return None
        return Scheme(
            self.bits,
            "int",
            "group" if self.group_size else "channel",
            group_size=self.group_size,
            symmetric=self.symmetric,
            actorder="group" if self.desc_act else None,
        )

    def changed(self, values: Mapping[str, Any]) -> "Packing":
        """With what a configuration states; a value of a wrong type counts as absent."""
        bits = values.get("bits", values.get("w_bit"))
        group_size = values.get("group_size", values.get("q_group_size"))
        zero_point, symmetric = values.get("zero_point"), values.get("sym")
        if isinstance(zero_point, bool):
            symmetric = not zero_point
        desc_act = values.get("desc_act")
        return replace(
            self,
            bits=bits if _is_size(bits) else self.bits,
            group_size=(group_size if _is_size(group_size) else None)
            if type(group_size) is int
            else self.group_size,
            symmetric=symmetric if isinstance(symmetric, bool) else self.symmetric,
            desc_act=desc_act if isinstance(desc_act, bool) else self.desc_act,
        )


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


@dataclass(frozen=True)
class _Override:
    """What modules of some names are, or are not.

    Attributes:
        names: Whether a module is meant; None where the expression is not evaluated.
    """

    names: Callable[[str], object] | None
    packing: Packing | None


class Packings:
    """What a configuration declares for each module.

    Source: https://github.com/ModelCloud/GPTQModel (`dynamic`: the first expression that matches
    from the start of the name decides, `-:` leaves the module out) and
    https://github.com/intel/auto-round (`extra_config`).
    """

    def __init__(self, config: Mapping[str, Any], layout: str) -> None:
        words = config.get("pack_dtype", "int32")
        if words != "int32":
            layout = f"{layout} in {words}"
        if any(config.get(key) for key in ROTATIONS):
            layout = f"rotated {layout}"
        act_bits = config.get("act_bits")
        if _is_size(act_bits) and act_bits < UNQUANTIZED_BITS:
            layout = f"{layout} A{act_bits}"
        self.default = Packing(layout, None, None, True, False).changed(config)
        self.skipped = Unconverted(config.get("modules_to_not_convert"))
        self._head = config.get("lm_head")
        self._listed = _strings(config.get("modules_in_block_to_quantize"))
        self._named: dict[str, Packing | None] = {}
        self._overrides = [*self._dynamic(config), *self._extra(config)]

    @cached_property
    def all(self) -> tuple[Packing, ...]:
        """Every packing that some module may have."""
        overrides = [*self._named.values(), *(found.packing for found in self._overrides)]
        found = [packing for packing in overrides if packing]
        if any(override.names is None for override in self._overrides):
            found.append(self._undecided)
        return tuple(dict.fromkeys([self.default, *found]))

    @cached_property
    def _undecided(self) -> Packing:
        return replace(self.default, bits=None)

    def of(self, module: str) -> Packing | None:
        """How the module is packed; None where the configuration leaves it out."""
        if module in self._named:
            return self._named[module]
        for override in self._overrides:
            if override.names is None:
                return self._undecided
            if override.names(module):
                return override.packing
        # AutoRound states no flag for the head, and the others' default is false.
        if _leaf(module) == "lm_head" and not self._head and self.default.layout != "auto-round":
            return None
        return None if self.skipped.surely(module) else self.default

    def demands(self, module: str) -> bool:
        """Whether every runtime expects the module quantized."""
        listed = not self._listed or any(name in module for name in self._listed)
        packing = self.of(module)
        decided = packing is not None and packing != self._undecided
        return listed and decided and not self.skipped.perhaps(module)

    def demands_head(self, module: str) -> bool:
        """Whether the module is the head, and declared quantized."""
        return _leaf(module) == "lm_head" and self._head is True and self.demands(module)

    def _dynamic(self, config: Mapping[str, Any]) -> Iterator[_Override]:
        dynamic = config.get("dynamic")
        entries = dynamic.items() if isinstance(dynamic, Mapping) else ()
        for pattern, values in islice(entries, MAX_PATTERNS):
            skips = pattern.startswith("-:")
            named = Targets([f"re:{pattern.removeprefix('-:').removeprefix('+:')}"])
            packing = self.default.changed(values) if isinstance(values, Mapping) else self.default
            yield _Override(
                None if named.refused else named.__contains__, None if skips else packing
            )
        if len(entries) > MAX_PATTERNS:
            yield _Override(None, None)

    def _extra(self, config: Mapping[str, Any]) -> Iterator[_Override]:
        extra = config.get("extra_config")
        entries = extra.items() if isinstance(extra, Mapping) else ()
        patterns = 0
        for name, values in entries:
            if not isinstance(values, Mapping):
                continue
            packing: Packing | None = self.default.changed(values)
            if packing and packing.bits and packing.bits >= UNQUANTIZED_BITS:
                packing = None
            if SPECIAL.isdisjoint(name):
                self._named[name] = packing
                continue
            patterns += 1
            known = len(name) <= MAX_NAME and patterns <= MAX_PATTERNS
            expression = compiled(name) if known else None
            yield _Override(expression.fullmatch if expression else None, packing)


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]


def _strings(value: object) -> tuple[str, ...]:
    """The strings of a list, or of a list of lists."""
    found = value if isinstance(value, list) else []
    flat = [item for part in found for item in (part if isinstance(part, list) else [part])]
    return tuple(item for item in flat[:1024] if isinstance(item, str))
