"""How far distributions have moved, in words: table cells and what they mean; not yet escaped."""

from collections.abc import Sequence

from gate.records import Drift, EvalResult

TITLE = "Drift from the baseline"

COLUMNS = (
    "read",
    "tokens",
    "mean KL",
    "99 %",
    "largest",
    "same top token",
    "lost / gained",
)

_READ = {"text": "{}", "answers": "answers to {}"}


def rows(result: EvalResult | None) -> list[tuple[str, ...]]:
    """One row for each text and for the answers to each task."""
    return [_row(drift) for drift in result.drifts] if result is not None else []


def _row(drift: Drift) -> tuple[str, ...]:
    error = f" ± {drift.kl_stderr:.4f}" if drift.kl_stderr is not None else ""
    return (
        _READ[drift.source].format(drift.name),
        f"{drift.tokens:,}",
        f"{drift.kl:.4f}{error}",
        f"{drift.kl_p99:.3f}",
        f"{drift.kl_max:.2f}",
        f"{100 * drift.same_top:.1f} %",
        f"{drift.losses:,} / {drift.gains:,}",
    )


def notes(result: EvalResult) -> list[str]:
    """What the figures mean, and what rounding alone would do to them."""
    if not result.drifts:
        return []
    tops = " or ".join(str(k) for k in sorted({drift.k for drift in result.drifts}))
    told = [
        "KL divergence of the baseline's next-token distributions to the candidate's, in nats: a "
        f"lower bound (top {tops} tokens of the baseline, the rest as one). Lost and gained: next "
        "tokens that only the baseline, or only the candidate, holds for most likely."
    ]
    floor = result.rounding_floor
    if floor is not None:
        told.append(f"A last-bit change of rounding alone gives a mean KL of {floor.kl:.2g}.")
    return told


def facts(result: EvalResult) -> list[tuple[str, str]]:
    """What was to be read and was not, and why."""
    return [("Not read", sentence) for sentence in result.unread]


def stored(result: EvalResult) -> list[tuple[str, str]]:
    """What was kept for candidates to be compared with."""
    kept: Sequence[str] = [
        f"{_READ[found.source].format(found.name)} ({found.tokens:,} tokens)"
        for found in result.distributions
    ]
    if not kept:
        return []
    files = f"keep the {len(kept)} .npz files beside the result"
    return [("Distributions", f"top {result.distributions[0].k} of {', '.join(kept)}; {files}")]
