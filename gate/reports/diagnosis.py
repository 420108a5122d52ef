"""Where a checkpoint is hurt, why, and what to do: sentences and table cells, not yet escaped."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from gate.records import Diagnosis, Exclusion, ModuleSensitivity
from gate.reports.causes import CLIPPED, cause, clips, fault, percent, weight_errors
from gate.reports.wording import count, duration, stored

TITLE = "Where it hurts"

WORST = 5
"""Modules that a report of a verdict names."""

MOST_MODULES = 15
"""Modules that a report of a diagnosis, or a page, names."""

MODULES = ("worst modules", "KL returned", "share", "weight error", "clipped", "size")
NOTE = (
    "KL returned: the divergence that goes away when these alone are put back to the reference (≈: "
    "an estimate). Clipped: the inputs beyond what the input scale can hold. Size: what they take "
    "more when they are unquantized."
)
KINDS = ("worst kinds", "modules", "KL returned", "share")
LAYERS = ("worst layers", "KL returned", "share")

MOST_CULPRITS = 3
MOST_FAULTS = 3
CULPRITS_SHARE = 0.25
"""Of the divergence: what up to three modules together must carry to be named as the place."""

SHARE = 0.5
"""The same of a layer or a kind, which have many modules."""

STANDS_OUT = 0.5
"""Of what the worst module carries: from there on, another is named with it."""


def sentences(found: Diagnosis) -> tuple[str, str, str]:
    """Where it hurts, why, and what to do."""
    return _where(found), _why(found), _advice(found)


def _where(found: Diagnosis) -> str:
    """Where: the few modules, the layer or the kind that carries most of the damage."""
    damage = f"KL {found.divergence:.3f} nats a token, perplexity ×{found.perplexity_ratio:.3f}"
    if not found.modules:
        return f"No module differs from the reference ({damage})"
    few = culprits(found)
    if few:
        verb = "carries" if len(few) == 1 else "carry"
        together = share(sum(module.returned for module in few), found)
        return f"{named(few, found)} {verb} {together} of the damage ({damage})"
    layer = max(found.layers, key=lambda each: _number(each.returned), default=None)
    if layer is not None and _carries(layer.returned, found):
        return (
            f"Layer {layer.layer} carries {share(layer.returned, found)} of the damage ({damage})"
        )
    kind = max(found.kinds, key=lambda each: _number(each.returned), default=None)
    if kind is not None and _carries(kind.returned, found):
        whole = f"{share(kind.returned, found)} of the damage ({damage})"
        return f"The {count(kind.modules, kind.kind + ' module')} carry {whole}"
    worst = found.modules[0]
    return (
        f"The damage is spread over {count(len(found.modules), 'module')} ({damage}): the worst, "
        f"{named([worst], found)}, carries {share(worst.returned, found)}"
    )


def _why(found: Diagnosis) -> str:
    """Why it hurts there: a wrong scale, other codes, clipped inputs, or plain rounding."""
    errors = weight_errors(found)
    usual = median(errors) if errors else None
    few = culprits(found)
    if few:
        return "; ".join(f"{named([module], found)}: {cause(module, usual)}" for module in few)
    if not found.modules:
        return "What differs is not in the weights"
    parts = ["No module stands out"]
    if usual is not None:
        parts.append(f"their weights are off by {percent(usual)} (median), as rounding does")
    clipped = sum(each.clipped >= CLIPPED for each in found.inputs)
    if clipped:
        parts.append(f"{count(clipped, 'module')} cannot hold {percent(CLIPPED)} of their inputs")
    return "; ".join(parts)


def _advice(found: Diagnosis) -> str:
    """What to do: mend what is broken, recalibrate, or leave modules unquantized."""
    few, exclusion = culprits(found), proposed(found)
    faults = [broken.repair for module in found.modules if (broken := fault(module))]
    parts = faults[:MOST_FAULTS]
    if len(faults) > MOST_FAULTS:
        parts.append(f"So for {count(len(faults) - MOST_FAULTS, 'more module')}")
    clipping = [module for module in few if clips(module)]
    if clipping:
        inputs = f"inputs of {named(clipping, found)} are larger than any it was calibrated on"
        parts.append(f"Recalibrate on text like this one: {inputs}")
    if exclusion is not None:
        parts.append(_proposal(exclusion, found))
    elif few and not parts:
        parts.append(f"Leave {named(few, found)} unquantized")
    return ". ".join(parts or [_otherwise(found)])


def _otherwise(found: Diagnosis) -> str:
    """What to do where no module stands out and no set is proposed."""
    if not found.modules:
        return (
            "Look at configuration, template and tokenizer: gate lint CHECKPOINT "
            "--reference ORIGINAL"
        )
    if found.limit is None:
        return "Leave the worst modules unquantized, or quantize to more bits"
    if found.perplexity_ratio <= found.limit:
        return (
            f"On this text the limit of {found.limit:g} is kept; where tasks fail, leave the worst "
            "modules unquantized"
        )
    return (
        f"Quantize to more bits: no set of modules was found without which the limit of "
        f"{found.limit:g} is kept"
    )


def proposed(found: Diagnosis) -> Exclusion | None:
    """The set to put back; None where what carries the damage is broken: that is mended."""
    return None if any(map(fault, culprits(found))) else found.exclusion


def _proposal(exclusion: Exclusion, found: Diagnosis) -> str:
    """The set to put back, its measured effect and what it costs."""
    parts = []
    if exclusion.modules:
        parts.append(f"leave {count(len(exclusion.modules), 'module')} unquantized")
    if exclusion.restore:
        named = count(len(exclusion.restore), "unquantized module")
        parts.append(f"give {named} the reference's values")
    what = " and ".join(parts)
    size = stored(abs(exclusion.extra_bytes))
    cost = f"for {size} more" if exclusion.extra_bytes >= 0 else f"and saves {size}"
    return (
        f"{what[0].upper()}{what[1:]}: measured on this text, perplexity "
        f"×{found.perplexity_ratio:.3f} becomes ×{exclusion.perplexity_ratio:.3f} (at most "
        f"{exclusion.limit:g} is allowed) {cost}"
    )


def effect(exclusion: Exclusion, found: Diagnosis) -> str:
    """How sure the proposal is."""
    return (
        f"KL falls from {found.divergence:.3f} to {exclusion.divergence:.3f} nats a token; for all "
        f"of the text the ratio lies below {exclusion.perplexity_ratio_high:.3f} with 95 % "
        f"({count(exclusion.measurements, 'set')} measured)"
    )


def culprits(found: Diagnosis) -> tuple[ModuleSensitivity, ...]:
    """Up to three modules that are broken, or that stand out and carry much of the damage."""
    broken = tuple(module for module in found.modules if fault(module))
    if 0 < len(broken) <= MOST_CULPRITS:
        return broken
    ahead = found.modules[: MOST_CULPRITS + 1]
    worst = ahead[0].returned if ahead else 0.0
    few = [module for module in ahead if worst > 0 and module.returned >= STANDS_OUT * worst]
    if len(few) > MOST_CULPRITS or not all(module.measured for module in few):
        return ()
    much = _carries(sum(module.returned for module in few), found, CULPRITS_SHARE)
    return tuple(few) if much else ()


def named(modules: Sequence[ModuleSensitivity], found: Diagnosis) -> str:
    """Modules as one speaks of them: "down_proj of layers 3 and 7"; else by their full names."""
    places = Counter((each.kind, each.layer) for each in found.modules)
    groups: dict[str, list[ModuleSensitivity]] = defaultdict(list)
    for module in modules:
        alone = module.layer is not None and places[module.kind, module.layer] == 1
        groups[module.kind if alone else module.module].append(module)
    said = []
    for name, group in groups.items():
        layers = sorted(each.layer for each in group if each.layer is not None)
        if name == group[0].module or not layers:
            said.append(name)
        else:
            noun = "layer" if len(layers) == 1 else "layers"
            said.append(f"{name} of {noun} {listed(map(str, layers))}")
    return listed(said)


def listed(words: "Sequence[str] | map[str]") -> str:
    """For example: "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def tables(found: Diagnosis) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """Title, columns and rows of each table that is not empty."""
    told = [
        ("Modules", MODULES, module_rows(found, MOST_MODULES)),
        ("Kinds of module", KINDS, kind_rows(found)),
        ("Layers", LAYERS, layer_rows(found)),
    ]
    return [(title, columns, rows) for title, columns, rows in told if rows]


def module_rows(found: Diagnosis, most: int) -> list[tuple[str, ...]]:
    """The worst modules, below `MODULES`; a figure that was estimated is marked."""
    return [
        (
            module.module,
            f"{'' if module.measured else '≈ '}{module.returned:.4f}",
            share(module.returned, found),
            percent(module.weight_error),
            percent(module.clipped),
            stored(module.extra_bytes),
        )
        for module in found.modules[:most]
    ]


def kind_rows(found: Diagnosis) -> list[tuple[str, ...]]:
    """The worst kinds of module, below `KINDS`."""
    return [
        (kind.kind, f"{kind.modules:,}", f"{kind.returned:.4f}", share(kind.returned, found))
        for kind in found.kinds[:WORST]
    ]


def layer_rows(found: Diagnosis) -> list[tuple[str, ...]]:
    """The worst layers, below `LAYERS`."""
    known = [layer for layer in found.layers if layer.returned is not None]
    known.sort(key=lambda layer: _number(layer.returned), reverse=True)
    return [
        (f"layer {layer.layer}", f"{layer.returned:.4f}", share(layer.returned, found))
        for layer in known[:WORST]
    ]


def share(returned: float | None, found: Diagnosis) -> str:
    """Part of the whole divergence; several added up may come to more than the whole."""
    if returned is None or not found.divergence > 0:
        return "-"
    return percent(min(returned / found.divergence, 1.0))


def facts(found: Diagnosis) -> list[tuple[str, str]]:
    """Name and sentence of what was read, and of what was not measured."""
    read = (
        f"{count(found.windows, 'window')} of {found.window:,} tokens of {found.text}; KL over the "
        f"reference's {found.top_tokens} most likely tokens and the rest as one"
    )
    said = [("Reference", found.reference), ("Read", read)]
    said += [("Not measured", note) for note in found.notes]
    return [*said, ("Diagnosed in", duration(found.duration_s))]


def _carries(returned: float | None, found: Diagnosis, least: float = SHARE) -> bool:
    return found.divergence > 0 and _number(returned) >= least * found.divergence


def _number(value: float | None) -> float:
    """What is no number is less than any."""
    return value if value is not None and math.isfinite(value) else -math.inf
