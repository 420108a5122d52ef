"""Speed and memory in words, the same in every form, not yet escaped."""

import math
from collections.abc import Iterator, Sequence

from gate.records import Comparison, EvalResult, Repeated, Throughput
from gate.reports import wording
from gate.verdict import PEAK_MEMORY, SPEED

EMULATED = (
    "Quantized weights were decoded to run here, so these figures are not those of the "
    "checkpoint's own kernels: emulated quantization tells quality, not speed."
)

TITLE = "Speed and memory"

COLUMNS = ("sequences", "first token, s", "prefill, tokens/s", "decode, tokens/s", "a token, ms")

OWNERS = {
    "device": "allocated on the device while it ran",
    "process": "resident of the whole process, loading included",
}


def rows(result: EvalResult | None) -> list[tuple[str, ...]]:
    """A row for each batch, below `COLUMNS`; none where nothing was measured."""
    found = result.throughput if result is not None else None
    return [
        (
            str(speed.batch),
            *map(
                _range,
                (
                    speed.first_token_s,
                    speed.prefill_tokens_per_s,
                    speed.decode_tokens_per_s,
                    speed.ms_per_token,
                ),
            ),
        )
        for speed in (found.batches if found is not None else ())
    ]


def notes(result: EvalResult | None) -> Iterator[str]:
    """How the figures came about, and what goes with them: a sentence each."""
    found = result.throughput if result is not None else None
    if found is None:
        return
    devices = f"{found.devices} x " if found.devices > 1 else ""
    yield (
        f"Median and range of {wording.count(found.repeats, 'run')} of "
        f"{wording.count(found.prompt_tokens, 'random token')} and "
        f"{wording.count(found.new_tokens, 'new one')} a sequence; "
        f"{devices}{found.device}, {found.kernel}."
    )
    yield f"Peak memory: {wording.stored(found.peak_bytes)}, {OWNERS[found.peak_of]}."
    cost = found.cost_per_million
    if cost is not None:
        yield (
            f"Cost: {cost:,.2f} for a million new tokens at batch {found.largest.batch}, their "
            f"prompts included, at {found.gpu_hour_price} a GPU hour."
        )
    if found.emulated:
        yield EMULATED


def value(comparison: Comparison, figure: float) -> str:
    """A figure of a comparison of speed or memory; empty where there is none."""
    if math.isnan(figure):
        return ""
    stored = comparison.metric == PEAK_MEMORY and math.isfinite(figure)
    return wording.stored(int(figure)) if stored else number(figure)


def number(figure: float) -> str:
    """Three digits, whole from a hundred up, for example: "0.148", "17.6", "1,234"."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def borderline(comparison: Comparison) -> str | None:
    """What BORDERLINE means for one figure; None where it is no speed, or none."""
    if comparison.task != SPEED or not comparison.borderline:
        return None
    return (
        f"BORDERLINE: the runs of {comparison.metric} are too far apart to tell it from its limit; "
        "a machine that does nothing else, or more repeats, would tell more."
    )


def columns(results: Sequence[EvalResult]) -> list[tuple[str, list[str]]]:
    """Columns of `gate compare`: header and a cell for each result; none if none was measured."""
    found = [result.throughput for result in results]
    if not any(found):
        return []
    return [
        ("decode tokens/s", [_rate(each) if each else "" for each in found]),
        (PEAK_MEMORY, [wording.stored(each.peak_bytes) if each else "" for each in found]),
    ]


def _rate(found: Throughput) -> str:
    """With what it is of: "45.5 (batch 8, emulated)"."""
    how = ", emulated" if found.emulated else ""
    return f"{number(found.largest.decode_tokens_per_s.median)} (batch {found.largest.batch}{how})"


def _range(figure: Repeated) -> str:
    if figure.low == figure.high:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.low)} to {number(figure.high)})"
