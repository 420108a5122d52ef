"""Metrics in words: table cells, and what the marks beside a verdict mean; not yet escaped."""

from collections.abc import Sequence

from gate.records import Comparison, EvalResult, Verdict
from gate.reports import repeats, speed, wording
from gate.reports.wording import VERDICTS
from gate.verdict import DRIFT, MEAN, PEAK_MEMORY, PERPLEXITY, SPEED

COLUMNS = (
    "metric",
    "baseline",
    "candidate",
    "retained",
    "95 % interval",
    "limit",
    "outcome",
)


SUITE_COLUMNS = ("suite", "tier", "decided by", "retained", "limit", "outcome", "note")


def suites(verdict: Verdict) -> list[tuple[str, ...]]:
    """One row a suite below `SUITE_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for suite in verdict.suites:
        advisory = "advisory" if suite.tier == "advisory" else ""
        sign = "≥" if suite.higher_is_better else "≤"
        rows.append(
            (
                suite.name,
                suite.tier,
                suite.metric,
                "" if suite.retention is None else f"{suite.retention:.3f}",
                "" if suite.limit is None else f"{sign} {suite.limit}",
                VERDICTS[suite.outcome] if suite.outcome is not None else advisory,
                suite.note,
            )
        )
    return rows


def cells(comparison: Comparison) -> tuple[str, ...]:
    """One row below `COLUMNS`; the first cell is the metric's name."""
    # Of a task that was stopped early the limit is settled, and no figure.
    settled = comparison.early_stop is not None
    low, high = (None, None) if settled else (comparison.ci_low, comparison.ci_high)
    return (
        f"{comparison.task} {comparison.metric}",
        _value(comparison, comparison.baseline),
        _value(comparison, comparison.candidate),
        _retained(comparison),
        "" if low is None or high is None else f"{low:.3f} - {high:.3f}",
        limit(comparison),
        outcome(comparison),
    )


def limit(comparison: Comparison) -> str:
    """The limit on the scale of the `retained` column, or of the figure itself.

    Empty for an advisory metric.
    """
    if comparison.min_score is not None:
        return f"score ≥ {comparison.min_score}"
    if comparison.threshold is None:
        return ""
    if (comparison.task, comparison.metric) == (SPEED, PEAK_MEMORY):
        return f"≤ {speed.value(comparison, float(comparison.threshold))}"
    if comparison.higher_is_better:
        return f"≥ {comparison.threshold}"
    mirrored = comparison.budget is not None
    return f"≤ {2 - comparison.threshold if mirrored else comparison.threshold}"


def outcome(comparison: Comparison) -> str:
    """The verdict on one metric, marked where the interval holds the limit."""
    if comparison.outcome is None:
        timed_out = comparison.early_stop is not None and comparison.early_stop.outcome is None
        return "not finished" if timed_out else "advisory"
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
    sign = "" if _is_share(comparison) else "×"
    return f"{sign}{comparison.retention:.3f}"


def budget_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """The error budget of each gating task metric, in the words of its reason."""
    return [c.reason for c in comparisons if c.budget is not None]


def _is_share(comparison: Comparison) -> bool:
    """Whether its figures are shares of points, not perplexities."""
    return comparison.losses is not None or comparison.task == MEAN


def _power(comparisons: Sequence[Comparison]) -> str | None:
    """The least loss that these documents show almost always: the noise band beyond the limit."""
    shown = []
    for c in comparisons:
        if c.noise is None or c.budget is None or c.threshold is None or c.min_score is not None:
            continue
        least = 1 - float(c.threshold) + c.noise
        if least < 1:
            shown.append(f"{100 * least:.1f} % ({c.task} {c.metric}, {c.n:,} documents)")
    return f"Smallest true loss that fails in 99 % of runs: {', '.join(shown)}." if shown else None


def marks(comparisons: Sequence[Comparison]) -> list[str]:
    """What the documents can show, and what the marks beside a metric's verdict mean."""
    known = [
        _power(comparisons),
        _early(comparisons),
        _borderline(comparisons),
        *map(speed.borderline, comparisons),
    ]
    known += map(repeats.rerun, comparisons)
    return list(filter(None, known))


def _early(comparisons: Sequence[Comparison]) -> str | None:
    """What EARLY means, where it occurs, and what it saved."""
    stopped = {
        (c.task, c.metric if c.task == PERPLEXITY else ""): (c.n, c.early_stop)
        for c in comparisons
        if c.early_stop is not None and c.early_stop.outcome is not None
    }
    if not stopped:
        return None
    tasks = [
        f"{task}{text and f' on {text}'} after {n:,} of {stop.n_planned:,} "
        f"{'windows' if text else 'documents'}, {100 * (1 - n / stop.n_planned):.0f} % saved"
        + (f", about {wording.duration(stop.seconds_saved)}" if stop.seconds_saved else "")
        for (task, text), (n, stop) in stopped.items()
    ]
    return (
        "EARLY: the verdict on all of them was settled before the last one "
        f"({'; '.join(tasks)}); figures marked ~ are of what was asked or read, and --full "
        "measures the rest."
    )


def _borderline(comparisons: Sequence[Comparison]) -> str | None:
    """What BORDERLINE means, where it occurs."""
    names = [
        f"{c.task} {c.metric} ({c.n:,})" for c in comparisons if c.borderline and c.task != SPEED
    ]
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

    A metric's column is there if any variant was compared on it; speed and memory, if measured.
    """
    known: dict[tuple[str, str], Comparison] = {}
    for _, _, comparisons in rows:
        for comparison in (c for c in comparisons if c.task != SPEED):
            known.setdefault((comparison.task, comparison.metric), comparison)
    # The article's order: perplexity before the tasks.
    keys = sorted(known, key=lambda key: known[key].losses is not None)
    header = ["variant", "size", "bits/weight", "compression", *(" ".join(key) for key in keys)]
    measured = speed.columns([baseline, *(result for _, result, _ in rows)])
    first = [_value(known[key], known[key].baseline) for key in keys]
    table = [["baseline", *_size_cells(baseline, baseline), *first]]
    for name, result, comparisons in rows:
        by_key = {(c.task, c.metric): c for c in comparisons}
        cells = [_variant_cell(by_key.get(key)) for key in keys]
        table.append([name, *_size_cells(result, baseline), *cells])
    header += [name for name, _ in measured]
    for index, row in enumerate(table):
        row += [found[index] for _, found in measured]
    return header, table


def _variant_cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    value, retained = _value(comparison, comparison.candidate), _retained(comparison)
    return f"{value} ({retained})" if retained else value


def _value(comparison: Comparison, value: float) -> str:
    if comparison.task == SPEED:
        return speed.value(comparison, value)
    if comparison.task == DRIFT:
        return f"{value:.4f}"
    return f"{value:.3f}" if _is_share(comparison) else f"{value:.2f}"


def _size_cells(result: EvalResult, baseline: EvalResult) -> list[str]:
    size = result.size
    smaller = baseline.size.stored_bytes / size.stored_bytes if size.stored_bytes else 1.0
    return [wording.stored(size.stored_bytes), f"{size.bits_per_weight:.2f}", f"{smaller:.2f}×"]
