"""What reports say of the reference and of the target, the same in every form, not yet escaped."""

from collections.abc import Iterator

from gate.records import Fit, LintResult, MemoryNeed, ReferenceResult
from gate.reports.wording import count

LAYER_COLUMNS = ("worst layers", "algorithm", "relative RMS error", "cosine")

MOST_LAYERS = 10


def layer_rows(lint: LintResult) -> list[tuple[str, ...]]:
    """The layers that are farthest from the reference, below `LAYER_COLUMNS`."""
    layers = lint.reference.layers[:MOST_LAYERS] if lint.reference else ()
    return [
        (error.layer, error.algo, f"{error.relative_rms:.4f}", f"{error.cosine:.5f}")
        for error in layers
    ]


def facts(lint: LintResult) -> list[tuple[str, str]]:
    """Name and sentence of what was compared and of how the checkpoint would run."""
    found: list[tuple[str, str]] = []
    if lint.reference is not None:
        found += _reference(lint.reference)
    if lint.fit is not None:
        found += _fit(lint.fit)
    return found


def _reference(result: ReferenceResult) -> Iterator[tuple[str, str]]:
    parts = [f"{count(len(result.layers), 'layer')} compared"] if result.layers else []
    if result.equal_tensors or result.changed_tensors:
        parts.append(
            f"{result.equal_tensors:,} of {result.equal_tensors + len(result.changed_tensors):,} "
            "unquantized tensors are the same bit for bit"
        )
    yield "Reference", f"{result.source}: {', '.join(parts) or 'no weight was compared'}"
    for reason in result.skipped:
        yield "Not compared", reason


def _fit(fit: Fit) -> Iterator[tuple[str, str]]:
    target = fit.target
    places = [place for place in (fit.runtime, fit.device) if place]
    shared = f", {target.tensor_parallel} devices share every layer"
    if places:
        yield "Target", " on ".join(places) + (shared if target.tensor_parallel > 1 else "")
    for way in fit.executions:
        yield "Path", f"{way.algorithm}, {count(way.layers, 'layer')}: {way.path}. {way.reason}"
    if fit.memory is not None:
        yield "Memory", _memory(fit.memory, target.tensor_parallel)
        yield from (("Memory", note) for note in fit.memory.notes)


def _memory(need: MemoryNeed, devices: int) -> str:
    """Each part, their sum, and what is there."""
    parts = [f"weights {_gigabytes(need.weights)}"]
    if need.kv_cache is not None:
        bound = "" if need.kv_cache_exact else "at most "
        parts.append(f"KV cache {bound}{_gigabytes(need.kv_cache)}")
    parts.append(f"workspace {_gigabytes(need.workspace)}")
    there = "" if need.available is None else f" of {_gigabytes(need.available)}"
    fits = {True: ": fits", False: ": does not fit", None: ""}[need.fits]
    each = " a device" if devices > 1 else ""
    return f"{_gigabytes(need.total)}{there}{each}{fits} ({', '.join(parts)})"


def _gigabytes(stored_bytes: int) -> str:
    """Decimal gigabytes."""
    return f"{stored_bytes / 1e9:,.1f} GB"
