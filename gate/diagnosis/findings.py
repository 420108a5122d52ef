"""What was measured, as records."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from gate.diagnosis.clipping import InputRange
from gate.diagnosis.passes import Passes
from gate.diagnosis.ranking import Returned
from gate.diagnosis.search import ratio
from gate.diagnosis.suspects import Suspect
from gate.diagnosis.targets import TOP_TOKENS
from gate.records import InputClipping, KindDamage, LayerDamage, ModuleSensitivity


def found(
    passes: Passes, returned: Mapping[Suspect, Returned], ranges: Mapping[str, InputRange]
) -> dict[str, Any]:
    """What was read, and the tables, as fields of a `Diagnosis`."""
    windows, window = sum(map(len, passes.batches)), passes.batches[0].shape[1]
    return {
        "windows": windows,
        "window": window,
        "tokens": windows * (window - 1),
        "top_tokens": TOP_TOKENS,
        "divergence": passes.base.mean,
        "perplexity_ratio": ratio(passes, passes.base, windows).value,
        "layers": _layers(passes, returned),
        "kinds": _kinds(returned),
        "modules": _modules(returned, ranges),
        "inputs": _inputs(returned, ranges),
    }


def _layers(passes: Passes, returned: Mapping[Suspect, Returned]) -> tuple[LayerDamage, ...]:
    """Every decoder layer: how far the hidden states have moved, and what its modules carry."""
    carried: dict[int | None, float] = defaultdict(float)
    for suspect, found in returned.items():
        carried[suspect.layer] += found.value
    return tuple(
        LayerDamage(layer=index, hidden_error=error, returned=carried.get(index))
        for index, error in enumerate(passes.hidden_errors)
    )


def _kinds(returned: Mapping[Suspect, Returned]) -> tuple[KindDamage, ...]:
    """What the modules of each kind carry, the most damaging first."""
    carried: dict[str, list[float]] = defaultdict(list)
    for suspect, found in returned.items():
        carried[suspect.kind].append(found.value)
    ordered = sorted(carried.items(), key=lambda item: (-sum(item[1]), item[0]))
    return tuple(
        KindDamage(kind=kind, modules=len(values), returned=sum(values)) for kind, values in ordered
    )


def _modules(
    returned: Mapping[Suspect, Returned], ranges: Mapping[str, InputRange]
) -> tuple[ModuleSensitivity, ...]:
    """Every module that differs, in the order of the ranking."""
    clipped: dict[str, float] = defaultdict(float)
    for parameter, found in ranges.items():
        module = parameter.rpartition(".")[0]
        clipped[module] = max(clipped[module], found.clipped)
    return tuple(
        ModuleSensitivity(
            module=suspect.name,
            kind=suspect.kind,
            layer=suspect.layer,
            returned=value,
            measured=measured,
            quantized=suspect.quantized,
            weight_error=suspect.error.relative_rms if suspect.error else None,
            weight_gain=suspect.error.gain if suspect.error else None,
            clipped=clipped.get(suspect.modules[0]),
            extra_bytes=suspect.extra_bytes,
        )
        for suspect, (value, measured) in returned.items()
    )


def _inputs(
    returned: Mapping[Suspect, Returned], ranges: Mapping[str, InputRange]
) -> tuple[InputClipping, ...]:
    """Every static input scale, the most clipped first."""
    names = {module: suspect.name for suspect in returned for module in suspect.modules}
    found = [
        InputClipping(
            module=name,
            clipped=each.clipped,
            range_used=each.largest / each.held if each.held > 0 else float("inf"),
        )
        for name, each in _named(ranges, names)
        if each.values
    ]
    return tuple(sorted(found, key=lambda each: (-each.clipped, -each.range_used, each.module)))


def _named(
    ranges: Mapping[str, InputRange], names: Mapping[str, str]
) -> Iterator[tuple[str, InputRange]]:
    """Fused experts have two inputs, which are told apart by their parameters' names."""
    for parameter, found in ranges.items():
        module, _, leaf = parameter.rpartition(".")
        yield (names.get(module, module) if leaf == "weight" else parameter), found
