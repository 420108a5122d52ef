"""Work out every figure of docs/statistics.md anew and put it between its markers.

What is exact comes from summing over all numbers of lost and gained answers, the rest from
simulations with fixed seeds (`early_stop.py`, `suites.py`). Both use the functions that judge a
checkpoint: a changed rule shows as a changed document::

    python benchmarks/verdict_figures.py            writes them
    python benchmarks/verdict_figures.py --check    exits 1, naming the tables that are out of date
    python benchmarks/verdict_figures.py --exact    leaves out what is simulated
    python benchmarks/verdict_figures.py --demo DIR takes what `gate demo` measured in, too
"""

import argparse
import functools
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from statistics import variance
from typing import Any

import early_stop
import suites
from exact_outcomes import LIMIT, RIGHT, N, answers, outcome

from gate import screen, stopping
from gate.settings.suites import FLOOR
from gate.stats import paired, rerun
from gate.stats.sequential import BETS
from gate.verdict import soundness, texts
from gate.verdict import suites as suites_rule

DOCUMENT = Path(__file__).parent.parent / "docs" / "statistics.md"
FLIPS = (0.02, 0.05, 0.10, 0.15)
RETENTIONS = (1.0, 0.99, 0.975, 0.969, 0.95, 0.93, 0.90)
RUNS = 200
SUITE_RUNS = 20_000
Lines = Iterator[str]


def cells() -> Iterator[tuple[float, float]]:
    """True retentions with the shares of changed answers that they can have."""
    for retention, flips in itertools.product(RETENTIONS, FLIPS):
        if flips >= RIGHT / N * (1 - retention):
            yield retention, flips


def constants() -> Lines:
    """What the text above states and the code fixes."""
    yield "| constant | value |"
    yield "|---|--:|"
    for what, value in (
        ("an early PASS that the full run would not confirm", percent(stopping.ALPHA)),
        ("an early FAIL, divided by the number of gating metrics", percent(stopping.ALPHA)),
        ("evidence that settles", f"{1 / stopping.ALPHA:.0f}"),
        ("stakes", ", ".join(map(str, BETS))),
        ("documents from which `auto` stops on a PASS, too", f"more than {stopping.LONG:,}"),
        ("smallest budget of a gating metric", f"{soundness.MIN_BUDGET}"),
        ("points for that at a limit of 0.95", f"{soundness.MIN_BUDGET / (1 - LIMIT):.0f}"),
        ("floor of a suite", str(FLOOR)),
        ("gain that quantization does not explain", percent(suites_rule.IMPLAUSIBLE)),
        ("perplexity of a baseline that is refused", f"above {soundness.MOST_PERPLEXITY:,}"),
        ("windows of the first look at a text", f"{screen.WINDOWS}"),
        ("error of that look, one-sided", f"{texts.SCREEN_TAIL:.1%}".replace("%", " %")),
        ("quantile of 99 %, one-sided", f"{paired.Z_99:.2f}"),
    ):
        yield f"| {what} | {value} |"


def decide() -> Lines:
    """What 541 documents say of candidates whose true retention is known."""
    yield "| true retention | flips | FAIL by the figure | borderline | FAIL with `block` |"
    yield "|--:|--:|--:|--:|--:|"
    for retention, flips in cells():
        found = outcome(retention, flips)
        shares = " | ".join(percent(share) for share in found[:3])
        yield f"| {plain(retention)} | {whole(flips)} | {shares} |"


def coverage() -> Lines:
    """How often the interval holds the true retention."""
    held = [outcome(retention, flips).held for retention, flips in cells()]
    yield (
        f"In the cases of that table the 95 % interval holds the true retention in "
        f"{percent(min(held))} to {percent(max(held))} of runs."
    )


def limits() -> Lines:
    """From which retention on a candidate passes or fails in 99 % of runs, by limit."""
    yield "| `min_retention` | may lose net | flips | PASS in 99 % from | FAIL in 99 % up to |"
    yield "|--:|--:|--:|--:|--:|"
    for limit, flips in itertools.product(("0.99", "0.98", "0.95", "0.90"), FLIPS[:3]):
        budget = paired.budget(RIGHT, Decimal(limit))
        passes = _edge(lambda r, f=flips, x=limit: outcome(r, f, Decimal(x)).fail <= 0.01)
        fails = _edge(lambda r, f=flips, x=limit: outcome(r, f, Decimal(x)).fail < 0.99)
        yield f"| {limit} | {budget} | {whole(flips)} | {passes:.3f} | {fails:.3f} |"


def _edge(holds: Callable[[float], bool]) -> float:
    """The least retention in thousandths from which something holds."""
    low, high = 700, 1100
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle / 1000) else (middle + 1, high)
    return low / 1000


def band() -> Lines:
    """The noise band, as a report shows it, by the share of changed answers."""
    yield "| flips | noise band around the limit |"
    yield "|--:|--:|"
    for flips in FLIPS:
        lost, gained = divmod(round(flips * N), 2)
        yield f"| {whole(flips)} | ± {paired.noise_band(*answers(lost, lost + gained)):.3f} |"


def needed() -> Lines:
    """Documents with which both errors are at most 1 %."""
    yield f"| true retention | {' | '.join(f'{whole(flips)} flips' for flips in suites.FLIPS)} |"
    yield f"|--:|{'--:|' * len(suites.FLIPS)}"
    for row in suites.documents():
        numbers = (f"{row[f'{flips:.0%}']:,}" for flips in suites.FLIPS)
        yield f"| {plain(row['truth'])} | {' | '.join(numbers)} |"


def several() -> Lines:
    """What several suites say together: each by its limit, or their mean and floors."""
    each = [f"each {count}" for count in suites.COUNTS]
    mean = [f"mean {count}" for count in suites.COUNTS[1:]]
    yield f"| true retention | flips | {' | '.join(each + mean)} |"
    yield f"|---|--:|{'--:|' * len(each + mean)}"
    for row in suites.by_count(SUITE_RUNS):
        shares = " | ".join(percent(float(str(row[name]))) for name in each + mean)
        yield f"| {row['truth']} | {whole(float(str(row['flips'])))} | {shares} |"


def escalation() -> Lines:
    """What a second suite changes where the first is borderline."""
    yield "| true retention | escalated | fails by IFEval alone | fails with escalation |"
    yield "|--:|--:|--:|--:|"
    for row in suites.by_escalation(SUITE_RUNS):
        names = ("escalated", "alone", "escalating")
        shares = " | ".join(percent(float(str(row[name]))) for name in names)
        yield f"| {plain(row['truth'])} | {shares} |"


def reruns() -> Lines:
    """How likely another run falls on the other side of the limit."""
    yield "| net loss, where 20 are allowed | 1 % of answers differ | 2 % | 5 % |"
    yield "|--:|--:|--:|--:|"
    allowed = paired.budget(RIGHT, LIMIT)
    for loss in (12, 18, 20, 21, 28):
        shares = (rerun.other_side(loss, allowed, N, share, True) for share in (0.01, 0.02, 0.05))
        yield f"| {loss} | {' | '.join(map(percent, shares))} |"


def used() -> Lines:
    """Documents that a verdict takes with `early_stop: guaranteed`."""
    yield "| suite, documents | true retention | flips | documents used | differs |"
    yield "|---|--:|--:|--:|--:|"
    for row in early_stop.rows(RUNS):
        shares = f"{percent(row.share)} | {percent(row.wrong)}"
        yield f"| {row.suite.name} | {plain(row.retention)} | {whole(row.flips)} | {shares} |"


def guarantee() -> Lines:
    """How often an early verdict is wrong where that is most likely."""
    worst = [percent(share) for share in early_stop.boundary(2 * RUNS)]
    yield (
        f"Where the full run fails by one document, {worst[0]} of {2 * RUNS} random orders ended "
        f"in an early PASS; where it just passes, {worst[1]} in an early FAIL (the worst of "
        f"{len(early_stop.GAINED)} populations each)."
    )


EXACT: dict[str, Callable[[], Lines]] = {
    "constants": constants, "decide": decide, "coverage": coverage, "limits": limits,
    "band": band, "needed": needed, "several": several, "escalation": escalation,
    "reruns": reruns,
}  # fmt: skip
SIMULATED: dict[str, Callable[[], Lines]] = {"stopping": used, "guarantee": guarantee}


def windows(directory: Path) -> Lines:
    """How well paired windows tell a ratio, on what `gate demo` left in its directory."""
    (text,) = _perplexities(directory / "baselines" / "smollm2-135m.json")
    base = _means(text)
    yield "| export | ratio | 95 % interval | to see +1 % | +2 % | +5 % | the latter unpaired |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name in ("fp8", "nvfp4"):
        (other,) = _perplexities(directory / "reports" / f"{name}.json")
        found = _means(other)
        ratio = paired.ratio_interval(other["window_nll"], text["window_nll"], text["scored"])
        differences = [c - b for c, b in zip(found, base, strict=True)]
        seen = " | ".join(_enough(variance(differences), more) for more in (0.01, 0.02, 0.05))
        unpaired = _enough(variance(found) + variance(base), 0.05)
        ends = f"{ratio.low:.3f} to {ratio.high:.3f}"
        yield f"| {name.upper()} | {ratio.value:.3f} | {ends} | {seen} | {unpaired} |"


def _perplexities(file: Path) -> list[dict[str, Any]]:
    stored = json.loads(file.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = (stored.get("evaluation") or stored)["perplexities"]
    return found


def _means(text: dict[str, Any]) -> list[float]:
    return [nll / text["scored"] for nll in text["window_nll"]]


def _enough(spread: float, more: float) -> str:
    """Windows that tell so much more perplexity from none with 1 % of either error."""
    return f"{max(2, math.ceil((2 * paired.Z_99) ** 2 * spread / math.log1p(more) ** 2)):,}"


def percent(share: float) -> str:
    """A share, as precise as is of use."""
    telling = 0.0005 <= share < 0.0995 or 0.9005 <= share < 0.9995
    return f"{100 * share:.{1 if telling else 0}f} %"


def whole(share: float) -> str:
    """A share that is stated, not found."""
    return f"{100 * share:.0f} %"


def plain(retention: object) -> str:
    """A retention with two decimals, or three where it has them."""
    return f"{Decimal(str(retention)):.3f}".removesuffix("0")


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with these lines between the markers of that name.

    Raises:
        ValueError: The text has no such markers, or more than one pair.
    """
    found, count = re.subn(
        rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)",
        lambda _: "".join(f"{line}\n" for line in lines),
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{DOCUMENT.name} has {count} places for {name}")
    return found


def main() -> int:
    """Write the figures, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    parser.add_argument("--exact", action="store_true", help="leave out what is simulated")
    parser.add_argument("--demo", type=Path, help="where `gate demo` left its results")
    options = parser.parse_args()
    tables = EXACT if options.exact else EXACT | SIMULATED
    if options.demo:
        tables = tables | {"windows": functools.partial(windows, options.demo)}
    stale = []
    for name, lines in tables.items():
        made = list(lines())
        text = DOCUMENT.read_text(encoding="utf-8")
        new = replaced(text, name, made)
        if new != text:
            stale.append(name)
            if not options.check:
                DOCUMENT.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name} of {DOCUMENT.name} {'is out of date' if options.check else 'was written'}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
