"""The gate's own rates on a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gate.records import Calibration, Rate, Spread
from gate.reports import console, wording
from gate.reports.wording import VERDICTS, plain


def render(found: Calibration, *, color: bool = False, width: int = 100) -> str:
    """Every verdict counted, what that says, and how far the figures lie apart.

    Args:
        found: Of reruns, or of draws.
        color: Whether to write terminal colours.
        width: Columns of the terminal.
    """
    against = f"{plain(found.checkpoint)} against {plain(found.baseline)}"
    parts: list[RenderableType] = [Text.assemble(("Calibrated", "bold"), f"  {against}")]
    parts.append(_verdicts(found))
    parts += [Text(plain(sentence)) for sentence in _sentences(found)]
    if found.spreads:
        parts.append(_spreads(found.spreads))
    parts.append(Text(f"Took {wording.duration(found.duration_s)}."))
    return console.rendered(Group(*parts), color, width)


def _verdicts(found: Calibration) -> Table:
    table = console.headed_table()
    for index, name in enumerate(("verdict", "draws" if _drawn(found) else "runs", "share")):
        table.add_column(name, justify="right" if index else "left")
    for outcome, count in sorted(found.outcomes.items(), key=lambda item: -item[1]):
        table.add_row(VERDICTS[outcome], f"{count:,}", f"{100 * (count / found.differing.n):.1f} %")
    return table


def _sentences(found: Calibration) -> Iterator[str]:
    word = VERDICTS[found.verdict]
    if _drawn(found):
        yield f"Other documents of the same kind: {_share(found.differing)} would not be {word}."
    else:
        yield f"The same bytes: {_share(found.differing)} were not {word}."
    if found.same_model:
        yield f"False alarms: {_share(found.failing)} failed the baseline's own model."
    if found.refused:
        yield (
            f"{found.refused:,} more draws had too few points in the baseline for a verdict, and "
            "count in no rate."
        )
    disagreed = found.early_disagreed
    if disagreed is not None:
        asked = sum(run.early_documents or 0 for run in found.runs)
        planned = sum(run.documents for run in found.runs if run.early_outcome is not None)
        yield (
            f"Stopping early: {_share(disagreed)} would have ended with another verdict than on "
            f"all documents; {asked:,} of {planned:,} documents would have been asked."
        )


def _share(rate: Rate) -> str:
    """For example: "1 of 20 (5.0 %, 95 % interval 0.1 to 24.9 %)"."""
    share = f"{100 * rate.count / rate.n:.1f} %" if rate.n else "none"
    interval = f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %"
    return f"{rate.count:,} of {rate.n:,} ({share}, 95 % interval {interval})"


def _spreads(spreads: Sequence[Spread]) -> Table:
    table = console.headed_table()
    header = ("metric", "limit", "mean", "standard deviation", "smallest", "largest")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for spread in spreads:
        figures = (spread.mean, spread.sd, spread.low, spread.high)
        table.add_row(
            Text(plain(f"{spread.task} {spread.metric}")),
            spread.threshold,
            *("" if figure is None else f"{figure:.4f}" for figure in figures),
        )
    return table


def _drawn(found: Calibration) -> bool:
    return found.method == "resample"
