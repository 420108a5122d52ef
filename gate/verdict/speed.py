"""Speed and memory: not slower than the baseline by more than allowed, and within stated figures.

A figure is the median of repeated runs. Below the limit it is a FAIL; against the baseline only if
the ranges of both do not overlap either.
"""

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from gate.records import Comparison, Concern, Outcome, Repeated, Throughput
from gate.settings import Speed
from gate.verdict.outcome import judged

SPEED = "speed"
"""What stands for the task in a comparison of speed or memory."""

PEAK_MEMORY = "peak memory"

SPEED_METRIC = re.compile(
    r"(decode|prefill) tokens/s at batch \d{1,4}(, at least)?"
    r"|ms per token at batch \d{1,4}, at most"
    rf"|{PEAK_MEMORY}",
    re.ASCII,
)
"""Every name of a figure."""

FASTER = (
    "Measure again on a machine that does nothing else; if it stays so, serve it with kernels made "
    "for its format, or change the limits under speed in quant-gate.yaml."
)
"""What helps a checkpoint that is only too slow, or takes too much memory."""

UNCLEAR = "its runs are too far apart to tell"
"""Why a figure is borderline."""

RUN_MORE = (
    "Measure on a machine that does nothing else, or with more repeats, or let the figure decide: "
    "borderline: point in quant-gate.yaml."
)
"""What helps where the runs are too far apart to tell."""


def compare_speed(
    limits: Speed, baseline: Throughput | None, candidate: Throughput
) -> Iterator[Comparison]:
    """Every figure that has a limit, or a baseline that was measured alike.

    Args:
        limits: Of the settings; what has none is advisory.
    """
    why = incomparable(baseline, candidate)
    base = baseline if why is None else None
    ours = candidate.largest
    if base is not None or limits.max_slowdown is not None:
        theirs = _rates(base) if base is not None else {}
        for name, figure in _rates(candidate).items():
            yield _relative(name, theirs.get(name), figure, candidate.repeats, limits, why)
    if limits.min_tokens_per_s is not None:
        name = f"decode tokens/s at batch {ours.batch}"
        yield _absolute(
            name, ours.decode_tokens_per_s, limits.min_tokens_per_s, candidate, at_least=True
        )
    if limits.max_ms_per_token is not None:
        name = f"ms per token at batch {ours.batch}"
        yield _absolute(name, ours.ms_per_token, limits.max_ms_per_token, candidate, at_least=False)
    if base is not None or limits.max_peak_bytes is not None:
        yield _memory(limits.max_peak_bytes, base, candidate)


def speed_concerns(
    limits: Speed | None, baseline: Throughput | None, candidate: Throughput | None
) -> Sequence[Concern]:
    """That a limit relative to the baseline could not be applied, and why."""
    if limits is None or limits.max_slowdown is None or candidate is None:
        return ()
    why = incomparable(baseline, candidate)
    if why is None:
        return ()
    fix = "Measure the baseline again with these settings on this machine: gate eval."
    if candidate.emulated:
        fix = "Measure it in the runtime that serves it; max_slowdown decides nothing here."
    message = f"max_slowdown was not applied: {why}"
    return (Concern(kind="speed-not-compared", message=message, fix=fix),)


def incomparable(baseline: Throughput | None, candidate: Throughput) -> str | None:
    """Why two speeds tell nothing beside one another; None where they do."""
    if candidate.emulated and (baseline is None or not baseline.emulated):
        return (
            "the candidate's quantized weights were decoded to run here, which tells quality, "
            "not speed"
        )
    if baseline is None:
        return "the speed of the baseline was not measured"
    if baseline.emulated and not candidate.emulated:
        return "the baseline's quantized weights were decoded when it was measured"
    for what, theirs, ours in (
        ("device", _device(baseline), _device(candidate)),
        ("batch", _batches(baseline), _batches(candidate)),
        ("prompt", f"{baseline.prompt_tokens} tokens", f"{candidate.prompt_tokens} tokens"),
        ("length", f"{baseline.new_tokens} new tokens", f"{candidate.new_tokens} new tokens"),
    ):
        if theirs != ours:
            return f"the baseline was measured with another {what}: {theirs}, here {ours}"
    return None


def _device(found: Throughput) -> str:
    return f"{found.devices} x {found.device}" if found.devices > 1 else found.device


def _batches(found: Throughput) -> str:
    return " and ".join(str(speed.batch) for speed in found.batches)


def _rates(found: Throughput) -> dict[str, Repeated]:
    """What a relative limit is applied to: decoding at each batch, prefill at the largest."""
    decode = {f"decode tokens/s at batch {s.batch}": s.decode_tokens_per_s for s in found.batches}
    prefill = f"prefill tokens/s at batch {found.largest.batch}"
    return decode | {prefill: found.largest.prefill_tokens_per_s}


def _relative(
    name: str,
    base: Repeated | None,
    ours: Repeated,
    repeats: int,
    limits: Speed,
    why: str | None,
) -> Comparison:
    """Tokens/s beside the baseline's; advisory where there are none to compare with."""
    if base is None:
        return _comparison(
            name, math.nan, ours.median, repeats, f"{name}: {_range(ours)}; not compared, {why}"
        )
    ratio = ours.median / base.median if base.median else math.nan
    said = f"{name}: {_range(ours)}, {ratio:.3f} of the baseline's {_range(base)}"
    if limits.max_slowdown is None:
        return _comparison(name, base.median, ours.median, repeats, said)
    limit = 1 - limits.max_slowdown
    reached = ratio >= float(limit)
    unclear = not reached and ours.overlaps(base)
    said += f"; at least {limit} is required"
    if unclear:
        said += ", and the runs of both overlap"
    return _comparison(
        name,
        base.median,
        ours.median,
        repeats,
        said,
        threshold=limit,
        outcome=judged(reached or unclear),
        borderline=unclear,
    )


def _absolute(
    name: str, figure: Repeated, limit: Decimal, candidate: Throughput, *, at_least: bool
) -> Comparison:
    """A figure with a limit of its own."""
    bound = float(limit)
    kept = figure.median >= bound if at_least else figure.median <= bound
    side, needed = ("at least", "required") if at_least else ("at most", "allowed")
    said = f"{name}: {_range(figure)}; {side} {limit} is {needed}{_how(candidate)}"
    return _comparison(
        f"{name}, {side}",
        math.nan,
        figure.median,
        candidate.repeats,
        said,
        threshold=limit,
        absolute=True,
        higher_is_better=at_least,
        outcome=judged(kept),
        borderline=figure.low <= bound <= figure.high,
    )


def _memory(limit: int | None, base: Throughput | None, candidate: Throughput) -> Comparison:
    """The most memory in use."""
    ours = candidate.peak_bytes
    alike = base is not None and base.peak_of == candidate.peak_of
    theirs = float(base.peak_bytes) if base is not None and alike else math.nan
    said = f"{PEAK_MEMORY} of the {candidate.peak_of}: {ours / 1e6:,.1f} MB"
    if limit is not None:
        said += f"; at most {limit / 1e6:,.1f} MB is allowed{_how(candidate)}"
    return _comparison(
        PEAK_MEMORY,
        theirs,
        float(ours),
        candidate.repeats,
        said,
        threshold=Decimal(limit) if limit is not None else None,
        absolute=limit is not None,
        higher_is_better=False,
        outcome=judged(ours <= limit) if limit is not None else None,
    )


def _comparison(
    name: str,
    baseline: float,
    candidate: float,
    repeats: int,
    reason: str,
    *,
    threshold: Decimal | None = None,
    absolute: bool = False,
    higher_is_better: bool = True,
    outcome: Outcome | None = None,
    borderline: bool = False,
) -> Comparison:
    return Comparison(
        task=SPEED,
        metric=name,
        baseline=baseline,
        candidate=candidate,
        delta=candidate - baseline,
        retention=candidate / baseline if baseline else math.nan,
        ci_low=None,
        ci_high=None,
        threshold=threshold,
        absolute=absolute,
        n=repeats,
        higher_is_better=higher_is_better,
        method="median of repeated runs",
        outcome=outcome,
        borderline=borderline,
        reason=reason,
    )


def _how(found: Throughput) -> str:
    """What a reader of the figure alone must know."""
    return " (of decoded weights, not of the checkpoint's format)" if found.emulated else ""


def _range(figure: Repeated) -> str:
    """For example: "102.4 (98.1 to 103.0)"."""
    return f"{figure.median:,.1f} ({figure.low:,.1f} to {figure.high:,.1f})"
