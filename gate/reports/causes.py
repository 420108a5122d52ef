"""What is wrong with one module's weights and inputs, in words; not yet escaped."""

import math
from typing import NamedTuple

from gate.records import Diagnosis, ModuleSensitivity

RESEMBLES = 0.5
"""Cosine between a weight and the reference's below which it is another weight.

Four bits leave 0.99, two bits 0.9; codes in a wrong order leave none.
"""

SCALED = 1.25
"""Factor by which weights are off from which a scale is wrong: rounding leaves a few percent."""

CLIPPED = 0.001
"""Share of inputs beyond the scale from which the calibration is to blame."""

WORSE = 1.5
"""Times the median weight error from which a module is rounded worse than the others."""


class Fault(NamedTuple):
    """What no rounding does to weights, and how it is mended."""

    cause: str
    repair: str


def fault(module: ModuleSensitivity) -> Fault | None:
    """What is broken in a module; None where it is only rounded."""
    error, gain, name = module.weight_error, module.weight_gain, f"{module.module}.weight"
    if error is None or gain is None:
        return None
    if not (math.isfinite(error) and math.isfinite(gain)):
        return Fault("its weights are not finite", f"Export {name} again: it is not finite")
    if not _cosine(error, gain) >= RESEMBLES:
        return Fault(
            f"its weights do not resemble the reference's ({percent(error)} off)",
            f"Export {name} again: its codes are in another order, or of other weights",
        )
    if 1 / SCALED < gain < SCALED:
        return None
    off = f"{gain:.2g} times too large" if gain > 1 else f"{1 / gain:.2g} times too small"
    return Fault(f"its weights are {off}", f"Export {name} again: its scale is {off}")


def clips(module: ModuleSensitivity) -> bool:
    """Whether the input scale cannot hold a share of the inputs that matters."""
    return module.clipped is not None and module.clipped >= CLIPPED


def cause(module: ModuleSensitivity, usual: float | None) -> str:
    """Why a module carries much of the damage.

    Args:
        usual: The weight error of the median module; None where none was compared.
    """
    broken = fault(module)
    if broken:
        return broken.cause
    if clips(module):
        return f"{percent(module.clipped)} of its inputs are beyond what its input scale can hold"
    error = module.weight_error
    if error is None or usual is None:
        return "the reference has no weight of that name to compare with"
    against = f"{percent(error)} off the reference's, {percent(usual)} is the median"
    if error >= WORSE * usual:
        return f"its weights are rounded worse than others ({against})"
    return f"its weights are rounded no worse than others ({against}), so it is sensitive"


def weight_errors(found: Diagnosis) -> list[float]:
    """Of the modules whose weights were compared and are finite."""
    errors = (module.weight_error for module in found.modules)
    return [error for error in errors if error is not None and math.isfinite(error)]


def percent(value: float | None) -> str:
    """For example: "71 %", "2.3 %", "0.04 %"; "-" for None."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not a number"
    shown = 100 * value
    if abs(shown) >= 1e6:
        return f"{shown:.1e} %"
    if abs(shown) >= 10:
        return f"{shown:,.0f} %"
    return f"{shown:.1f} %" if abs(shown) >= 1 else f"{shown:.2g} %"


def _cosine(error: float, gain: float) -> float:
    """Between a weight and the reference's, where weight = gain * reference + rest."""
    rest = max(error**2 - (gain - 1) ** 2, 0.0)
    return gain / math.sqrt(gain**2 + rest) if gain or rest else 0.0
