"""How many documents a verdict takes, how often it differs from the full run's, and what it costs.

Candidates are simulated: of the baseline's right answers some are lost, of its wrong ones some are
gained, each independently. Seeds are fixed.

python benchmarks/early_stop.py [--runs 400]
"""

import argparse
import random
import time
from fractions import Fraction
from typing import NamedTuple

from gate.stats import paired
from gate.stats.sequential import Bounds, Sequential

ONE = Bounds(0, 1)


class Suite(NamedTuple):
    """Documents, and how many of them the baseline answers right."""

    name: str
    n: int
    right: int


IFEVAL = Suite("IFEval", 541, 400)
MMLU = Suite("MMLU", 14_042, 9_829)

CASES = (
    (IFEVAL, 1.0, 0.02),
    (IFEVAL, 1.0, 0.05),
    (IFEVAL, 1.0, 0.10),
    (IFEVAL, 0.99, 0.05),
    (IFEVAL, 0.975, 0.05),
    (IFEVAL, 0.969, 0.10),
    (IFEVAL, 0.95, 0.10),
    (IFEVAL, 0.93, 0.10),
    (IFEVAL, 0.90, 0.10),
    (IFEVAL, 0.50, 0.10),
    (IFEVAL, 0.0, 0.10),
    (MMLU, 1.0, 0.05),
    (MMLU, 0.969, 0.10),
    (MMLU, 0.90, 0.10),
    (MMLU, 0.0, 0.10),
)
"""Suite, true retention, share of documents whose answer changes (more, where retention asks)."""


class Run(NamedTuple):
    """One simulated candidate."""

    share: float
    agrees: bool
    seconds: float


def simulate(suite: Suite, retention: float, flips: float, draw: random.Random) -> Run:
    """Judge one candidate early, and see what the full run would have said."""
    p = suite.right / suite.n
    net = p * (1 - retention)
    changed = max(flips, net)
    lost, gained = (changed + net) / 2 / p, (changed - net) / 2 / (1 - p)
    baseline = [1] * suite.right + [0] * (suite.n - suite.right)
    draw.shuffle(baseline)
    scores = [b ^ (draw.random() < (lost if b else gained)) for b in baseline]
    allowed = paired.allowance(suite.right, LIMIT)
    truth = "pass" if sum(baseline) - sum(scores) <= allowed else "fail"
    run = Sequential(baseline, [ONE] * suite.n, allowed, whole=True)
    started = time.perf_counter()
    found = next(settled for score in scores if (settled := run.add(score)))
    return Run(run.n / suite.n, found.outcome == truth, time.perf_counter() - started)


LIMIT = Fraction(95, 100)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Simulate early stopping.")
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print("python benchmarks/early_stop.py\n")
    print("| suite | true retention | flips | documents used | differs from the full run |")
    print("|---|--:|--:|--:|--:|")
    seconds = documents = 0.0
    for suite, retention, flips in CASES:
        draw = random.Random(f"{suite.name} {retention} {flips}")
        made = [simulate(suite, retention, flips, draw) for _ in range(runs)]
        share = sum(run.share for run in made) / runs
        wrong = sum(not run.agrees for run in made) / runs
        seconds += sum(run.seconds for run in made)
        documents += share * suite.n * runs
        print(f"| {suite.name} | {retention} | {flips:.0%} | {share:.1%} | {wrong:.1%} |")
    print(f"\n{1e6 * seconds / documents:.1f} microseconds a document")


if __name__ == "__main__":
    main()
