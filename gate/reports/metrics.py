"""Metrics in words: table cells, and what the marks beside a verdict mean; not yet escaped."""

from collections.abc import Sequence

from gate.records import Comparison, EvalResult
from gate.reports import wording
from gate.reports.wording import VERDICTS

COLUMNS = (
    "metric",
    "baseline",
    "candidate",
    "retained",
    "95 % interval",
    "limit",
    "outcome",
)


def cells(comparison: Comparison) -> tuple[str, ...]:
    """One row below `COLUMNS`; the first cell is the metric's name."""
    percent = comparison.budget is not None or comparison.losses is not None
    value = "{:.3f}" if percent else "{:.2f}"
    # Of a task that was stopped early the limit is settled, and no figure.
    settled = comparison.early_stop is not None
    low, high = (None, None) if settled else (comparison.ci_low, comparison.ci_high)
    return (
        f"{comparison.task} {comparison.metric}",
        value.format(comparison.baseline),
        value.format(comparison.candidate),
        _retained(comparison),
        "" if low is None or high is None else f"{low:.3f} - {high:.3f}",
        limit(comparison),
        outcome(comparison),
    )


def limit(comparison: Comparison) -> str:
    """The limit on the scale of the `retained` column; empty for an advisory metric."""
    if comparison.threshold is None:
        return ""
    if comparison.higher_is_better:
        return f"≥ {comparison.threshold}"
    mirrored = comparison.budget is not None
    return f"≤ {2 - comparison.threshold if mirrored else comparison.threshold}"


def outcome(comparison: Comparison) -> str:
    """The verdict on one metric, marked where the interval holds the limit."""
    if comparison.outcome is None:
        return "advisory"
    word = VERDICTS[comparison.outcome]
    if comparison.early_stop is not None:
        return f"{word} · EARLY"
    return f"{word} · BORDERLINE" if comparison.borderline else word


def _retained(comparison: Comparison) -> str:
    if comparison.retention != comparison.retention:
        return ""
    if comparison.early_stop is not None:
        return f"~{comparison.retention:.2f}"
    # A ratio of perplexities is read as "times".
    sign = "" if comparison.losses is not None else "×"
    return f"{sign}{comparison.retention:.3f}"


def budget_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """The error budget of each gating task metric, in the words of its reason."""
    return [c.reason for c in comparisons if c.budget is not None]


def marks(comparisons: Sequence[Comparison]) -> list[str]:
    """What the marks beside a metric's verdict mean, where they occur."""
    return list(filter(None, [_early(comparisons), _borderline(comparisons)]))


def _early(comparisons: Sequence[Comparison]) -> str | None:
    """What EARLY means, where it occurs, and what it saved."""
    stopped = {c.task: (c.n, c.early_stop.n_planned) for c in comparisons if c.early_stop}
    if not stopped:
        return None
    tasks = [
        f"{task} after {n:,} of {planned:,} documents, {1 - n / planned:.0%} saved"
        for task, (n, planned) in stopped.items()
    ]
    return (
        "EARLY: the verdict on all documents was settled before the last one "
        f"({'; '.join(tasks)}); figures marked ~ are of the documents that were asked, and --full "
        "measures the rest."
    )


def _borderline(comparisons: Sequence[Comparison]) -> str | None:
    """What BORDERLINE means, where it occurs."""
    names = [f"{c.task} {c.metric} ({c.n:,})" for c in comparisons if c.borderline]
    if not names:
        return None
    noise = max((c.noise for c in comparisons if c.borderline and c.noise), default=None)
    only = f" These can only tell a retention that is {noise:.3f} or more from it." if noise else ""
    return (
        f"BORDERLINE: the limit lies inside the 95 % interval of {', '.join(names)}; more "
        f"documents or windows would tell more.{only}"
    )


def variants(
    baseline: EvalResult, rows: Sequence[tuple[str, EvalResult, tuple[Comparison, ...]]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `gate compare`, the baseline first.

    A metric's column is there if any variant was compared on it.
    """
    known: dict[tuple[str, str], Comparison] = {}
    for _, _, comparisons in rows:
        for comparison in comparisons:
            known.setdefault((comparison.task, comparison.metric), comparison)
    # The article's order: perplexity before the tasks.
    keys = sorted(known, key=lambda key: known[key].losses is not None)
    header = ["variant", "size", "bits/weight", "compression", *(" ".join(key) for key in keys)]
    first = [_value(known[key], known[key].baseline) for key in keys]
    table = [["baseline", *_size_cells(baseline, baseline), *first]]
    for name, result, comparisons in rows:
        by_key = {(c.task, c.metric): c for c in comparisons}
        cells = [_variant_cell(by_key.get(key)) for key in keys]
        table.append([name, *_size_cells(result, baseline), *cells])
    return header, table


def _variant_cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    value, retained = _value(comparison, comparison.candidate), _retained(comparison)
    return f"{value} ({retained})" if retained else value


def _value(comparison: Comparison, value: float) -> str:
    return f"{value:.3f}" if comparison.losses is not None else f"{value:.2f}"


def _size_cells(result: EvalResult, baseline: EvalResult) -> list[str]:
    size = result.size
    smaller = baseline.size.stored_bytes / size.stored_bytes if size.stored_bytes else 1.0
    return [wording.stored(size.stored_bytes), f"{size.bits_per_weight:.2f}", f"{smaller:.2f}×"]
