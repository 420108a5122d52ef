"""How many documents a verdict takes, how often it differs from the full run's, and what it costs.

Candidates are simulated: of the baseline's right answers some are lost, of its wrong ones some are
gained, each independently. Seeds are fixed.

python benchmarks/early_stop.py [--runs 400]
"""

import argparse
import random
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from gate.stats import paired
from gate.stats.sequential import Bounds, Sequential

LIMIT = Fraction(95, 100)


class Suite(NamedTuple):
    """Documents by what each is worth, and how many points the baseline has of them."""

    name: str
    weights: tuple[int, ...]
    right: int


def plain(name: str, n: int, right: int) -> Suite:
    """A suite whose documents are right or wrong."""
    return Suite(f"{name}, {n:,}", (1,) * n, right)


IFEVAL = plain("IFEval", 541, 400)
INSTRUCTIONS = Suite("IFEval by instruction, 541", (1,) * 305 + (2,) * 179 + (3,) * 57, 617)
HUMANEVAL = plain("HumanEval", 164, 115)
GSM8K = plain("GSM8K", 1319, 1187)
MMLU = plain("MMLU", 14_042, 9_829)

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
    (INSTRUCTIONS, 1.0, 0.05),
    (INSTRUCTIONS, 0.969, 0.10),
    (INSTRUCTIONS, 0.93, 0.10),
    (INSTRUCTIONS, 0.90, 0.10),
    (INSTRUCTIONS, 0.0, 0.10),
    (HUMANEVAL, 1.0, 0.05),
    (HUMANEVAL, 0.90, 0.10),
    (HUMANEVAL, 0.0, 0.10),
    (GSM8K, 1.0, 0.05),
    (GSM8K, 0.969, 0.10),
    (GSM8K, 0.90, 0.10),
    (GSM8K, 0.0, 0.10),
    (MMLU, 1.0, 0.05),
    (MMLU, 0.969, 0.10),
    (MMLU, 0.90, 0.10),
    (MMLU, 0.0, 0.10),
)
"""Suite, true retention, share of answers that change (more, where retention asks)."""

GAINED = (0, 7, 24, 60)
"""Answers gained in the populations that only just pass or fail."""


class Run(NamedTuple):
    """One simulated candidate."""

    share: float
    agrees: bool
    seconds: float


class Row(NamedTuple):
    """What the runs of one case have in common.

    Attributes:
        share: Of the documents, used on average, 0..1.
        wrong: Share of verdicts that differ from the full run's.
        seconds: Of the processor, spent by the rule on each document.
    """

    suite: Suite
    retention: float
    flips: float
    share: float
    wrong: float
    seconds: float


def rates(p: float, retention: float, flips: float) -> tuple[float, float]:
    """Shares of the right answers that are lost, and of the wrong ones that are gained.

    Args:
        p: Share of the baseline's answers that are right.
        retention: Share of the points that is kept on average.
        flips: Share of all answers that change; more, where the retention asks for it.
    """
    net = p * (1 - retention)
    changed = max(flips, abs(net))
    return (changed + net) / 2 / p, (changed - net) / 2 / (1 - p)


def simulate(suite: Suite, retention: float, flips: float, draw: random.Random) -> Run:
    """Judge one candidate early, and see what the full run would have said."""
    total = sum(suite.weights)
    lost, gained = rates(suite.right / total, retention, flips)
    before = [1] * suite.right + [0] * (total - suite.right)
    draw.shuffle(before)
    after = [b ^ (draw.random() < (lost if b else gained)) for b in before]
    weights = list(suite.weights)
    draw.shuffle(weights)
    return judge(list(_grouped(before, weights)), list(_grouped(after, weights)), weights)


def _grouped(points: list[int], weights: list[int]) -> Iterator[int]:
    taken = iter(points)
    return (sum(next(taken) for _ in range(weight)) for weight in weights)


def judge(baseline: list[int], scores: list[int], weights: list[int]) -> Run:
    """Feed the rule until it has settled the verdict."""
    allowed = paired.allowance(sum(baseline), LIMIT)
    truth = "pass" if sum(baseline) - sum(scores) <= allowed else "fail"
    run = Sequential(baseline, [Bounds(0, weight) for weight in weights], allowed, whole=True)
    started = time.process_time()
    found = next(settled for score in scores if (settled := run.add(score)))
    seconds = time.process_time() - started
    return Run(run.n / len(weights), found.outcome == truth, seconds)


def rows(runs: int) -> Iterator[Row]:
    """Every case, with so many candidates each."""
    for suite, retention, flips in CASES:
        draw = random.Random(f"{suite.name} {retention} {flips}")
        made = [simulate(suite, retention, flips, draw) for _ in range(runs)]
        share = sum(run.share for run in made) / runs
        wrong = sum(not run.agrees for run in made) / runs
        seconds = sum(run.seconds for run in made) / (share * len(suite.weights) * runs)
        yield Row(suite, retention, flips, share, wrong, seconds)


def boundary(runs: int) -> tuple[float, float]:
    """The largest shares of false PASS and false FAIL where the full run only just decides.

    Args:
        runs: Random orders of each population, which are as many as `GAINED`.
    """
    n, right = len(IFEVAL.weights), IFEVAL.right
    budget = int(paired.allowance(right, LIMIT))
    worst = []
    for lost_net in (budget + 1, budget):
        shares = []
        for gained in GAINED:
            lost = lost_net + gained
            pairs = [(1, 0)] * lost + [(1, 1)] * (right - lost)
            pairs += [(0, 1)] * gained + [(0, 0)] * (n - right - gained)
            draw = random.Random(f"{lost_net} {gained}")
            wrong = 0
            for _ in range(runs):
                draw.shuffle(pairs)
                before, after = ([pair[side] for pair in pairs] for side in (0, 1))
                wrong += not judge(before, after, [1] * n).agrees
            shares.append(wrong / runs)
        worst.append(max(shares))
    return worst[0], worst[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Simulate early stopping.")
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print("python benchmarks/early_stop.py\n")
    print("| suite | true retention | flips | documents used | differs | µs a document |")
    print("|---|--:|--:|--:|--:|--:|")
    for row in rows(runs):
        cells = f"{row.share:.1%} | {row.wrong:.1%} | {1e6 * row.seconds:.1f}"
        print(f"| {row.suite.name} | {row.retention} | {row.flips:.0%} | {cells} |", flush=True)
    false_pass, false_fail = boundary(runs)
    print(f"\nwhere the full run only just fails: PASS {false_pass:.1%}")
    print(f"where it only just passes: FAIL {false_fail:.1%}")


if __name__ == "__main__":
    main()
