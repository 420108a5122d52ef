"""The batch plan: blocks of the committed order, each sorted by length."""

from hypothesis import given
from hypothesis import strategies as st

from gate import batching
from gate.batching import order, share
from gate.records import Shard


@given(st.integers(0, 3000), st.integers(0, 200), st.integers(1, 64))
def test_blocks_hold_the_rest_in_order_and_are_no_larger_than_an_eighth(
    n: int, done: int, size: int
) -> None:
    blocks = batching.blocks(range(n), done, size)
    assert [i for block in blocks for i in block] == list(range(done, n))
    for block in blocks[:-1]:
        assert len(block) % size == 0, "batches are full"
        assert len(block) < -(-n // batching.BLOCKS) + size


def test_blocks_begin_small_and_double() -> None:
    sizes = [len(block) for block in batching.blocks(range(541), 16, 8)]
    assert sizes == [16, 32, 64, 72, 72, 72, 72, 72, 53]
    assert [len(block) for block in batching.blocks(range(100), 0, 8)] == [8, 8, *[16] * 5, 4]


def test_the_longest_come_first_and_ties_stay_in_order() -> None:
    lengths = {4: 10, 1: 30, 7: 10, 2: 30, 9: 5}
    assert batching.longest_first([4, 1, 7, 2, 9], lengths.__getitem__) == [1, 2, 4, 7, 9]


@given(
    n=st.integers(0, 200), size=st.integers(1, 20), count=st.integers(1, 12), seed=st.integers(0, 9)
)
def test_shards_are_whole_batches_and_all_of_them(n: int, size: int, count: int, seed: int) -> None:
    ids = order(range(n), str(seed), "task")
    shards = [share(ids, size, Shard(index=i, count=count, settings="0" * 64)) for i in
              range(1, count + 1)]  # fmt: skip
    cut = [tuple(ids[i : i + size]) for i in range(0, n, size)]
    taken = [tuple(s[i : i + size]) for s in shards for i in range(0, len(s), size)]
    assert sorted(taken) == sorted(cut)
    numbers = [len(range(0, len(s), size)) for s in shards]
    assert max(numbers) - min(numbers) <= 1
    assert share(ids, size, None) == ids
