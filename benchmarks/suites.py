"""How often several suites fail a checkpoint: each by its limit, by their mean, by escalation.

And how many documents a suite needs to tell a retention from the limit.

Candidates are simulated: of the baseline's right answers some are lost, of its wrong ones some are
gained, each independently, and suites independently of one another. Seeds are fixed.

python benchmarks/suites.py [--runs 20000] [--json FILE]
"""

import argparse
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gate.stats import paired

LIMIT, FLOOR = Decimal("0.95"), Decimal("0.90")
COUNTS = (1, 2, 4, 10)


class Suite(NamedTuple):
    """Documents, and how many of them the baseline answers right."""

    n: int
    right: int


IFEVAL, GSM8K = Suite(541, 400), Suite(1319, 1187)

CASES: tuple[tuple[str, tuple[float, ...], float, float], ...] = (
    ("all 0.99", (), 0.99, 0.10),
    ("all 0.975", (), 0.975, 0.05),
    ("all 0.975", (), 0.975, 0.10),
    ("all 0.969", (), 0.969, 0.10),
    ("one 0.90, the others 0.99", (0.90,), 0.99, 0.10),
    ("one 0.85, the others 0.99", (0.85,), 0.99, 0.10),
    ("all 0.93", (), 0.93, 0.10),
)
"""Name, the first suites' true retentions, that of the others, share of answers that change."""

ESCALATED = (1.0, 0.99, 0.969, 0.95, 0.93, 0.90)
"""True retention of both suites."""


NEEDED = (1.0, 0.99, 0.975, 0.969, 0.93, 0.90)
FLIPS = (0.02, 0.05, 0.10, 0.15)
"""Share of answers that change."""


class Drawn(NamedTuple):
    """Losses and gains of one suite in every run."""

    suite: Suite
    losses: np.ndarray
    gains: np.ndarray

    @property
    def net(self) -> np.ndarray:
        """Points lost less points gained."""
        return self.losses - self.gains

    @property
    def retention(self) -> np.ndarray:
        """Of the baseline's points."""
        return 1 - self.net / self.suite.right

    def over(self, limit: Decimal) -> np.ndarray:
        """Whether more was lost than the limit allows."""
        return self.net > paired.budget(self.suite.right, limit)

    def borderline(self) -> np.ndarray:
        """Whether the limit is inside the interval, as `paired.retention_interval` has it."""
        kept = self.retention
        squares = (self.suite.right - self.losses) * (1 - kept) ** 2
        squares = squares + self.losses * kept**2 + self.gains + 0.5 * kept**2 + 0.5
        half = paired.Z_95 * np.sqrt(squares) / self.suite.right
        return np.abs(kept - float(LIMIT)) <= half


def draw(suite: Suite, retention: float, flips: float, runs: int, seed: str) -> Drawn:
    """So many candidates of one true retention."""
    p = suite.right / suite.n
    net = p * (1 - retention)
    changed = max(flips, net)
    lost, gained = (changed + net) / 2 / p, (changed - net) / 2 / (1 - p)
    source = np.random.default_rng(list(seed.encode()))
    losses = source.binomial(suite.right, lost, runs)
    # A hard suite has few wrong answers to gain from.
    return Drawn(suite, losses, source.binomial(suite.n - suite.right, min(gained, 1.0), runs))


def by_count(runs: int) -> list[dict[str, object]]:
    """Share of candidates that fail, for each number of suites of IFEval's size."""
    rows: list[dict[str, object]] = []
    for name, first, others, flips in CASES:
        truths = [*first, *[others] * (max(COUNTS) - len(first))]
        drawn = [
            draw(IFEVAL, truth, flips, runs, f"{name} {flips} {index}")
            for index, truth in enumerate(truths)
        ]
        row: dict[str, object] = {"truth": name, "flips": flips}
        for count in COUNTS:
            some = drawn[:count]
            row[f"each {count}"] = float(np.mean(_any(some, LIMIT)))
            if count > 1:
                mean = np.mean([suite.retention for suite in some], axis=0) < float(LIMIT) - 1e-9
                row[f"mean {count}"] = float(np.mean(mean | _any(some, FLOOR)))
        rows.append(row)
    return rows


def by_escalation(runs: int) -> list[dict[str, object]]:
    """Share that fails by one suite alone, and where a second one helps when it is borderline."""
    rows: list[dict[str, object]] = []
    for truth in ESCALATED:
        first = draw(IFEVAL, truth, 0.10, runs, f"first {truth}")
        second = draw(GSM8K, truth, 0.10, runs, f"second {truth}")
        asked = first.borderline()
        budget = paired.budget(IFEVAL.right, LIMIT) + paired.budget(GSM8K.right, LIMIT)
        both = (first.net + second.net > budget) | _any([first, second], FLOOR)
        rows.append(
            {
                "truth": truth,
                "escalated": float(np.mean(asked)),
                "alone": float(np.mean(first.over(LIMIT))),
                "escalating": float(np.mean(np.where(asked, both, first.over(LIMIT)))),
            }
        )
    return rows


def documents() -> list[dict[str, object]]:
    """Documents from which the point rule is right in 99 % of runs, by true retention and flips."""
    right = IFEVAL.right / IFEVAL.n
    rows: list[dict[str, object]] = []
    for truth in NEEDED:
        far = right * (truth - float(LIMIT))
        row: dict[str, object] = {"truth": truth}
        for flips in FLIPS:
            # No fewer answers can change than are lost net.
            changed = max(flips, right * (1 - truth))
            row[f"{flips:.0%}"] = math.ceil(paired.Z_99**2 * changed / far**2)
        rows.append(row)
    return rows


def _any(suites: Sequence[Drawn], limit: Decimal) -> np.ndarray:
    return np.any([suite.over(limit) for suite in suites], axis=0)


def _require_same_interval() -> None:
    """The closed form above is the gate's own interval."""
    drawn = Drawn(IFEVAL, np.array([30]), np.array([12]))
    scores = [0.0] * 30 + [1.0] * 370 + [1.0] * 12 + [0.0] * 129
    interval = paired.retention_interval(scores, [1.0] * 400 + [0.0] * 141)
    assert math.isclose(interval.value, float(drawn.retention[0]))
    assert bool(drawn.borderline()[0]) == (interval.low <= float(LIMIT) <= interval.high)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Simulate verdicts over several suites.")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _require_same_interval()
    counted, escalated = by_count(options.runs), by_escalation(options.runs)
    if options.json:
        tables = {"count": counted, "escalation": escalated, "documents": documents()}
        options.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    columns = [f"each {count}" for count in COUNTS] + [f"mean {count}" for count in COUNTS[1:]]
    print("python benchmarks/suites.py\n")
    print(f"| true retention | changed | {' | '.join(columns)} |")
    print(f"|---|--:|{'--:|' * len(columns)}")
    for row in counted:
        shares = " | ".join(f"{row[column]:.3f}" for column in columns)
        print(f"| {row['truth']} | {row['flips']:.0%} | {shares} |")
    print("\n| true retention | escalated | fails, one suite | fails, escalating |")
    print("|--:|--:|--:|--:|")
    for row in escalated:
        shares = " | ".join(f"{row[key]:.3f}" for key in ("escalated", "alone", "escalating"))
        print(f"| {row['truth']} | {shares} |")
    columns = [f"{flips:.0%}" for flips in FLIPS]
    print(f"\n| true retention | {' | '.join(columns)} |")
    print(f"|--:|{'--:|' * len(columns)}")
    for row in documents():
        print(f"| {row['truth']} | {' | '.join(f'{row[column]:,}' for column in columns)} |")


if __name__ == "__main__":
    main()
