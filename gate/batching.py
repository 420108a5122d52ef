"""Which documents run together, worked out before any of them does.

A batch's composition changes BF16 answers, so it hangs on nothing but the committed order, the
prompts' lengths and the batch size: a run that was killed goes on with the batches that it would
have made.
"""

import random
from collections.abc import Callable, Sequence

from gate.records import Shard

BLOCKS = 8
"""A task that may be stopped is sorted in parts of at most one in so many.

Source: simulated, docs/statistics.md: with more in flight, most of a task runs before the first
documents of its order are complete.
"""


def order(doc_ids: Sequence[int], seed: str, task: str) -> list[int]:
    """The documents in their committed random order: the same for the same seed and task."""
    shuffled = sorted(doc_ids)
    # A repeated run of the same candidate must not draw again; no secret hangs on it.
    random.Random(f"{seed}/{task}").shuffle(shuffled)  # noqa: S311
    return shuffled


def blocks(order: Sequence[int], done: int, size: int) -> list[list[int]]:
    """The rest of a task in committed order, cut where it is well asked whether to stop.

    Blocks double with what was done before them, up to 1/`BLOCKS` of the task: what fails at once
    is stopped at once, and a long run sorts many documents at a time.

    Args:
        order: All documents, in committed order.
        done: How many of them are complete, the first ones.
        size: Of a batch; blocks hold whole ones.
    """
    cuts = []
    while done < len(order):
        wanted = min(max(size, done), -(-len(order) // BLOCKS))
        cuts.append(list(order[done : done + -(-wanted // size) * size]))
        done += len(cuts[-1])
    return cuts


def longest_first(block: Sequence[int], length: Callable[[int], int]) -> list[int]:
    """A block by length, so that a batch's prompts are alike; ties stay in committed order."""
    return sorted(block, key=lambda doc_id: -length(doc_id))


def share(ids: Sequence[int], size: int, shard: Shard | None) -> list[int]:
    """What a shard takes of a run's batches: whole ones, by turns, so that none has the longest.

    Args:
        ids: In the order in which they are cut into batches.
        size: Of a batch.
        shard: None for all of them.
    """
    if shard is None:
        return list(ids)
    starts = range((shard.index - 1) * size, len(ids), shard.count * size)
    return [i for start in starts for i in ids[start : start + size]]
