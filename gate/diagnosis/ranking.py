"""Which modules carry the damage: all of them estimated, the worst of them measured."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gate.diagnosis.estimates import estimates
from gate.diagnosis.passes import Passes
from gate.diagnosis.suspects import EVERYWHERE, Suspect
from gate.evaluate import Progress

BY_ESTIMATE = 8
"""Modules that are measured because their estimates are the largest, unless one is half of all."""

BY_WEIGHT = 2
"""Modules that are measured because their weights are the farthest from the reference's."""

MOST = 16
"""Modules that are measured at most, beside those outside of the decoder layers."""


class Returned(NamedTuple):
    """Divergence that goes away when a module is put back, in nats a token."""

    value: float
    measured: bool


def ranked(
    passes: Passes, suspects: Sequence[Suspect], progress: Progress
) -> dict[Suspect, Returned]:
    """Every suspect with what it carries, the most damaging first.

    An estimate is a gradient's at the candidate itself and may be wrong about large damage: the
    largest are measured, until none that was not measured could be the first.

    Args:
        passes: The candidate on its windows.
        suspects: What is ranked.
        progress: Told what is done.
    """
    estimated = estimates(passes, suspects, progress)
    found: dict[Suspect, Returned] = {}
    queue = _queue(suspects, estimated)
    with progress("measuring the worst modules", len(queue)) as advance:
        for suspect in queue:
            best = max((returned.value for returned in found.values()), default=0.0)
            estimate = _number(estimated.get(suspect.name), math.inf)
            enough = best > passes.base.mean / 2 or len(found) >= BY_WEIGHT + BY_ESTIMATE
            if enough and estimate <= best:
                break
            value = passes.base.mean - passes.measured([suspect]).mean
            found[suspect] = Returned(_number(value), True)
            advance(1)
    for suspect in suspects:
        if suspect not in found:
            found[suspect] = Returned(_number(estimated.get(suspect.name)), False)
    return dict(sorted(found.items(), key=lambda item: (-item[1].value, item[0].name)))


def _queue(suspects: Sequence[Suspect], estimated: Mapping[str, float]) -> list[Suspect]:
    """What may be measured, in that order: what cannot be estimated, then the most suspicious."""
    outside = [s for s in suspects if s.place == EVERYWHERE or s.name not in estimated]
    by_weight = sorted(suspects, key=_weight_error, reverse=True)[:BY_WEIGHT]
    by_estimate = sorted(suspects, key=lambda s: -_number(estimated.get(s.name), math.inf))
    return list(dict.fromkeys([*outside, *by_weight, *by_estimate[:MOST]]))


def _weight_error(suspect: Suspect) -> float:
    """What is no number is worse than any."""
    return _number(suspect.error.relative_rms, math.inf) if suspect.error else 0.0


def _number(value: float | None, otherwise: float = 0.0) -> float:
    return value if value is not None and math.isfinite(value) else otherwise
