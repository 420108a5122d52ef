"""How the error of the hidden states grows through the depth: a sentence and a chart of text."""

import itertools
import math
from collections.abc import Sequence

from gate.records import LayerDamage
from gate.reports.causes import percent

TITLE = "Error of the hidden states"

MOST_COLUMNS = 60
ROWS = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"


def sentence(layers: Sequence[LayerDamage]) -> str:
    """How far they are off at both ends, and where that grows most."""
    first, last = layers[0], layers[-1]
    broken = [each.layer for each in layers if not math.isfinite(each.hidden_error)]
    if broken:
        return f"The hidden states that leave layer {broken[0]} are not finite"
    said = (
        f"Hidden states leave layer {first.layer} {percent(first.hidden_error)} off the "
        f"reference's, and layer {last.layer} {percent(last.hidden_error)}"
    )
    steps = [
        (after.hidden_error - before.hidden_error, after.layer)
        for before, after in itertools.pairwise(layers)
    ]
    step, layer = max(steps, default=(0.0, 0))
    return f"{said}; the largest step is in layer {layer}" if step > 0 else said


def chart(layers: Sequence[LayerDamage]) -> list[str]:
    """Bars over the layers, from 0 to the largest error; `!` where it is no number.

    Where there are many layers, several share a bar, which is as high as the worst of them.
    """
    together = math.ceil(len(layers) / MOST_COLUMNS)
    errors = [layer.hidden_error for layer in layers]
    # Unlike `max`, the sum of a few errors keeps what is no number.
    columns = [errors[i : i + together] for i in range(0, len(errors), together)]
    worst = [max(column) if math.isfinite(sum(column)) else math.nan for column in columns]
    top = max((error for error in worst if error > 0), default=1.0)
    label = percent(top)
    rows = []
    for row in reversed(range(ROWS)):
        edge = label if row == ROWS - 1 else ""
        bars = "".join(_block(error / top, row) for error in worst)
        rows.append(f"{edge:>{len(label)}} │{bars}".rstrip())
    last = f"layer {layers[-1].layer}"
    axis = f"{layers[0].layer}{last:>{max(len(worst), len(last) + 2) - 1}}"
    return [*rows, f"{'0':>{len(label)}} └{'─' * len(worst)}", f"{'':>{len(label)}}  {axis}"]


def _block(height: float, row: int) -> str:
    """The part of a bar in one row, from the lowest, of which it fills `height` of all."""
    if not math.isfinite(height):
        return "!" if row == 0 else " "
    eighths = round(height * ROWS * 8) - 8 * row
    return _BLOCKS[min(8, max(0, eighths))]
