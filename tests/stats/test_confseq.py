"""The evidence equals that of another implementation, on values that it computed once."""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gate.stats.sequential import BETS, Bounds, Sequential

STORED = json.loads((Path(__file__).parents[1] / "fixtures" / "confseq.json").read_text())


def test_the_stakes_are_those_of_the_stored_values() -> None:
    assert STORED["bets"] == list(BETS)


@pytest.mark.parametrize("case", STORED["cases"], ids=range(len(STORED["cases"])))
def test_the_evidence_is_confseqs_betting_martingale(case: dict[str, Any]) -> None:
    run = Sequential(
        case["baseline"],
        [Bounds(0, top) for top in case["tops"]],
        Fraction(case["allowed"]),
        whole=case["whole"],
        higher_is_better=case["higher_is_better"],
        alpha_pass=0,
        alpha_fail=0,
    )
    compared = 0
    for position, score in enumerate(case["candidate"]):
        decided = run.settled()
        found = run.add(score)
        for side, theirs in case["evidence"].items():
            if theirs[position] is None:
                # Infinite: what it speaks against has become impossible.
                assert found is not None and found.certain
            elif decided is None:
                assert math.isclose(run.evidence[side], theirs[position], rel_tol=1e-12)
                compared += 1
    assert compared


def test_values_are_compared_while_nothing_is_certain() -> None:
    values = [v for case in STORED["cases"] for v in case["evidence"]["pass"] if v is not None]
    assert len(STORED["cases"]) >= 20 and max(values) > 100 and min(values) < 0.2
