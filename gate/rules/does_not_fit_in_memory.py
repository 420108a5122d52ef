"""Rule does-not-fit-in-memory."""

from collections.abc import Iterator
from typing import ClassVar

from gate.fit import gigabytes
from gate.records import Finding, Fit, MemoryNeed
from gate.rule import Evidence, Needs, Rule


class DoesNotFitInMemory(Rule):
    """Weights, KV cache and workspace take more memory than there is.

    Flags:
        More than `--memory`, or than the GPUs of `--gpu` have together, is needed for the weights
        as the runtime holds them, the KV cache of `--context` and `--concurrency`, and an
        allowance of 2.5 GiB a device. It is a warning where only the allowance, or a cache of
        which no more than a bound is known, exceeds it.
    Why:
        The server runs out of memory while loading, or with the first long conversations.
    Repair:
        Use more or larger devices, a shorter context, or a checkpoint of fewer bits.
    Source:
        https://arxiv.org/abs/2309.06180 (section 1: weights and KV cache fill the memory).
    """

    needs: ClassVar[Needs] = "target"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        fit = evidence.fit
        if fit is None or fit.memory is None or fit.memory.fits is not False:
            return
        over = fit.memory.available is not None and fit.memory.certain > fit.memory.available
        yield self.finding(
            _sentence(fit, fit.memory),
            "Use more or larger devices, a shorter context, or a checkpoint of fewer bits.",
            severity="error" if over else "warning",
        )


def _sentence(fit: Fit, memory: MemoryNeed) -> str:
    """The figures in units of 10^9 bytes."""
    devices, context = fit.target.tensor_parallel, fit.target.context
    parts = [f"weights {gigabytes(memory.weights)}"]
    if memory.kv_cache is not None and context is not None:
        most = "" if memory.kv_cache_exact else "at most "
        cache = f"KV cache {most}{gigabytes(memory.kv_cache)}"
        parts.append(f"{cache} for {context:,} x {fit.target.concurrency:,}")
    parts.append(f"workspace {gigabytes(memory.workspace)}")
    who = f"each of {devices} devices needs" if devices > 1 else "it needs"
    return (
        f"{who} {gigabytes(memory.total)} GB ({', '.join(parts)}); "
        f"{gigabytes(memory.available or 0)} GB are there"
    )
