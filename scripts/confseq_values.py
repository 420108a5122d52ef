"""Compute with `confseq` the evidence that `gate.stats.sequential` must arrive at.

confseq 0.0.11 (MIT) has wheels for Python 3.9 and 3.10 only and wants numpy 1, so its values are
kept in tests/fixtures/confseq.json and made in an environment of their own::

    python3.10 -m venv confseq
    confseq/bin/pip install confseq==0.0.11 "numpy<2" "scipy<1.13"
    confseq/bin/python scripts/confseq_values.py

Its martingale takes values in [0, 1] and a null mean; ours takes a candidate's and a baseline's
scores and the points that may be lost. What lies between the two is worked out here, without
importing `gate`.
"""

import json
import math
import random
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from confseq.betting import betting_mart

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "confseq.json"
BETS = (0.08, 0.16, 0.32, 0.60, 0.95)
CASES = 24
IMPOSSIBLE = 1e12
"""Evidence that is infinite but for the rounding of a null mean at the end of the range."""


def martingale(changes: list[float], low: float, high: float, total: float, side: str) -> Any:
    """The mean over all stakes of confseq's capital, one value a document.

    Args:
        changes: Of each document's score, within `low` and `high`.
        low, high: The range of any document's change.
        total: The sum of all changes under the null hypothesis.
        side: `pass` bets on a larger sum, `fail` on a smaller one.
    """
    n = len(changes)
    values = (np.array(changes) - low) / (high - low)
    mean = (total / n - low) / (high - low)

    def unbounded(values: Any, null: float) -> Any:
        """Bets that are cut to a share of the largest one that cannot lose everything."""
        return np.full(len(values), math.inf)

    capital = [
        betting_mart(
            values,
            mean,
            lambdas_fn_positive=unbounded,
            lambdas_fn_negative=unbounded,
            N=n,
            theta=1 if side == "pass" else 0,
            trunc_scale=bet,
        )
        for bet in BETS
    ]
    return np.mean(capital, axis=0)


def case(index: int) -> dict[str, Any]:
    """One suite of documents, a candidate's scores, and what confseq makes of them."""
    draw = random.Random(index)
    n = draw.randrange(6, 61)
    kind = ("right or wrong", "instructions", "quarters")[index % 3]
    tops = [1 if kind == "right or wrong" else draw.choice((1, 2, 3)) for _ in range(n)]
    step = 4 if kind == "quarters" else 1
    higher_is_better = index % 4 != 3
    baseline = [draw.randint(top * step // 2, top * step) / step for top in tops]
    drop = draw.choice((0.0, 0.1, 0.3, 0.8))
    candidate = [
        draw.randint(0, top * step) / step if draw.random() < drop else score
        for top, score in zip(tops, baseline)  # noqa: B905 (Python 3.10's own style)
    ]
    allowed = Fraction(draw.randint(0, 2 * n), 7)
    sign = 1 if higher_is_better else -1
    pairs = list(zip(baseline, candidate, tops))  # noqa: B905
    ends = [sign * (end - b) for b, _, top in pairs for end in (0, top)]
    whole = kind != "quarters"
    least = -math.floor(allowed) if whole else -float(allowed)
    changes = [sign * (c - b) for b, c, _ in pairs]
    nulls = {"pass": least - 1 if whole else least, "fail": least}
    return {
        "baseline": baseline,
        "candidate": candidate,
        "tops": tops,
        "allowed": str(allowed),
        "whole": whole,
        "higher_is_better": higher_is_better,
        "evidence": {
            side: [
                value if value < IMPOSSIBLE else None
                for value in martingale(changes, min(ends), max(ends), total, side).tolist()
            ]
            for side, total in nulls.items()
        },
    }


def main() -> None:
    """Write the fixture."""
    names = ("confseq", "numpy")
    made = {
        "made_by": "scripts/confseq_values.py",
        "versions": {name: version(name) for name in names},
        "license": "confseq is under the MIT license; these are values that it computed",
        "bets": BETS,
    }
    lines = ",\n".join(json.dumps(case(index)) for index in range(CASES))
    head = json.dumps(made, indent=1)[:-2]
    FIXTURE.write_text(f'{head},\n "cases": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    print(f"wrote {CASES} sequences")


if __name__ == "__main__":
    main()
