"""The baseline's own answers as text that every candidate reads: prompt and answer in one pass."""

from collections.abc import Iterable

import numpy as np

from gate.drift.top_tokens import Sequences

DOCUMENTS = 32
"""Answers of each generation task that are read again."""

MOST_TOKENS = 512
"""Of a prompt and its answer; of longer ones, the last."""


def sequences(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Sequences | None:
    """Prompts with their answers, of which the answers are scored; None where all are empty.

    Args:
        pairs: Token ids of a prompt and of the answer to it.
    """
    rows, first = [], []
    for prompt, answer in pairs:
        row = np.concatenate([prompt, answer])[-MOST_TOKENS:]
        start = max(1, len(row) - len(answer))
        if start < len(row):
            rows.append(row)
            first.append(start)
    return Sequences.of(rows, first) if rows else None
