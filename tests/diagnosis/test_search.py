"""The cheapest set that keeps a limit, on damage that is made up."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import terminal
from gate.diagnosis.ranking import Returned
from gate.diagnosis.search import MOST_SETS, cover, exclusion
from gate.diagnosis.suspects import Suspect, groups
from gate.diagnosis.targets import Distance

WINDOW, WINDOWS = 101, 8


def suspect(name: str, extra_bytes: int = 100, quantized: bool = True, layer: int = 0) -> Suspect:
    return Suspect(name, (name,), (name,), layer, layer, quantized, extra_bytes)


class Made:
    """Stands in for the passes: damage adds up, in nats a token.

    `spread` of it differs by window; with a `power` below one, little of it goes away at first.
    """

    def __init__(
        self,
        damage: dict[Suspect, float],
        spread: float = 0.0,
        factor: float = 1.0,
        power: float = 1.0,
    ) -> None:
        self.damage, self.spread, self.factor, self.power = damage, spread, factor, power
        self.batches = [np.zeros((WINDOWS, WINDOW), np.int64)]
        self.targets = [Distance(np.zeros(WINDOWS), np.full(WINDOWS, 300.0))]
        self.measurements = 0
        self.base = self.measured(())

    def measured(self, chosen: Any) -> Distance:
        self.measurements += 1
        total = sum(self.damage.values())
        left = max(0.0, 1 - sum(self.damage[each] for each in chosen) / total)
        by_window = (
            total * left**self.power * self.factor * (1 + self.spread * np.linspace(-1, 1, WINDOWS))
        )
        return Distance(by_window, 300.0 + by_window * (WINDOW - 1))


def proposed(made: Made, limit: float, windows: int = WINDOWS) -> Any:
    returned = {each: Returned(value, True) for each, value in made.damage.items()}
    together = groups(made.damage)
    return exclusion(made, together, returned, limit, windows, terminal.silent)  # type: ignore[arg-type]


def test_one_fault_is_all_that_is_proposed() -> None:
    small = {suspect(f"model.layers.{i}.mlp.down_proj"): 0.001 for i in range(20)}
    head = suspect("lm_head", extra_bytes=100_000)
    made = Made({**small, head: 0.5})
    found = proposed(made, 1.05)
    assert found.modules == ("lm_head",) and found.extra_bytes == 100_000
    assert found.perplexity_ratio == pytest.approx(math.exp(0.02))


def test_modules_worth_their_bytes_come_first() -> None:
    cheap = {suspect(f"model.layers.{i}.self_attn.o_proj", 10): 0.02 for i in range(10)}
    dear = {suspect(f"model.layers.{i}.mlp.down_proj", 1000): 0.02 for i in range(10)}
    found = proposed(Made({**cheap, **dear}), 1.3)
    assert set(found.modules) <= {each.name for each in cheap}
    assert 0.4 - 0.02 * len(found.modules) <= math.log(1.3) < 0.4 - 0.02 * (len(found.modules) - 2)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("count", [3, 40, 400])
def test_it_is_near_the_least_even_where_the_estimates_are_off(factor: float, count: int) -> None:
    random = np.random.default_rng(count)
    damage = {
        suspect(f"model.layers.{i}.mlp.down_proj"): float(value)
        for i, value in enumerate(random.exponential(1 / count, count))
    }
    made = Made(damage, factor=factor)
    limit = math.exp(made.base.mean * 0.3)
    found = proposed(made, limit)
    assert found.perplexity_ratio <= limit and made.measurements <= 1 + MOST_SETS
    ordered = sorted(damage.values(), reverse=True)
    needed = int(np.searchsorted(np.cumsum(ordered), 0.7 * sum(ordered) - 1e-12)) + 1
    assert needed <= len(found.modules) <= needed + max(1, 0.03 * count)


@pytest.mark.parametrize("power", [0.4, 0.6, 2.0])
def test_it_is_found_where_damage_does_not_add_up(power: float) -> None:
    damage = {suspect(f"model.layers.{i}.mlp.down_proj"): 0.0025 for i in range(400)}
    made = Made(damage, power=power)
    found = proposed(made, math.exp(0.3))
    needed = math.ceil(400 * (1 - 0.3 ** (1 / power)))
    assert found is not None and needed <= len(found.modules) <= needed + 20


def test_a_candidate_whose_perplexity_is_no_number_is_healed() -> None:
    fault = suspect("model.layers.0.mlp.up_proj")
    damage = {suspect(f"model.layers.{i}.mlp.down_proj"): 0.001 for i in range(20)}

    class Endless(Made):
        def measured(self, chosen: Any) -> Distance:
            kept = tuple(chosen)
            found = super().measured(kept)
            return Distance(found.divergence, found.nll * (1 if fault in kept else math.nan))

    found = proposed(Endless({fault: 1.0, **damage}), 1.2)
    assert found.modules == (fault.name,)


def test_windows_that_were_not_read_ask_for_more() -> None:
    damage = {suspect(f"model.layers.{i}.mlp.down_proj"): 0.01 for i in range(50)}
    read = proposed(Made(damage, spread=0.5), 1.2)
    unread = proposed(Made(damage, spread=0.5), 1.2, windows=10**6)
    assert read.perplexity_ratio_high == pytest.approx(read.perplexity_ratio)
    assert unread.perplexity_ratio < unread.perplexity_ratio_high <= 1.2
    assert len(unread.modules) > len(read.modules)


@pytest.mark.parametrize("left", [0.1, math.inf, math.nan])
def test_what_no_set_heals_gets_no_proposal(left: float) -> None:
    class Unhealed(Made):
        def measured(self, chosen: Any) -> Distance:
            found = super().measured(chosen)
            return Distance(found.divergence + left, found.nll + left * (WINDOW - 1))

    damage = {suspect(f"model.layers.{i}.mlp.down_proj"): 0.1 for i in range(5)}
    assert proposed(Unhealed(damage), 1.05) is None


@given(
    st.lists(st.tuples(st.floats(-1, 10), st.integers(-1000, 10**9)), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_a_cover_carries_its_share_and_holds_nothing_idle(
    drawn: list[tuple[float, int]], share: float
) -> None:
    each = {suspect(f"m{i}", size): value for i, (value, size) in enumerate(drawn)}
    returned = {s: Returned(value, False) for s, value in each.items()}
    worth = {s: max(0.0, value) for s, value in each.items()}
    chosen = [s for (s,) in cover([(s,) for s in each], returned, share)]
    wanted = share * sum(worth.values())
    assert sum(worth[s] for s in chosen) >= wanted * (1 - 1e-9)
    for left_out in chosen:
        rest = sum(worth[s] for s in chosen if s != left_out)
        assert rest < wanted or math.isclose(rest, wanted, rel_tol=1e-9)


def test_what_runtimes_join_is_one_group() -> None:
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    names += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    found = [suspect(f"model.layers.3.{name}", layer=3) for name in names]
    sizes = sorted(len(group) for group in groups(found))
    assert sizes == [1, 1, 2, 3]
    # A norm that was scaled with the weights behind it makes one group of the whole layer.
    norm = suspect("model.layers.3.input_layernorm", quantized=False, layer=3)
    other = suspect("model.layers.4.mlp.down_proj", layer=4)
    assert sorted(len(group) for group in groups([*found, norm, other])) == [1, 8]
