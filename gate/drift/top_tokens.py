"""The most likely tokens of a distribution and the rest as one, in 16 bits each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gate.drift.reading import Reading

LEAST = -1e4
"""Log-probability below which a token is impossible; float16 ends at -65,504."""

LEAST_REST = 2.0**-24
"""Probability that the rest always has: what float32 sums cannot tell from none."""


class Sequences(NamedTuple):
    """Token ids that are read together, and which of them are scored.

    Attributes:
        ids: int64, shape (n, width), filled up with 0 at the end.
        first: The first scored token of each, at least 1: int64, shape (n,).
        length: Tokens of each: int64, shape (n,).
    """

    ids: np.ndarray
    first: np.ndarray
    length: np.ndarray

    @classmethod
    def whole(cls, windows: np.ndarray) -> "Sequences":
        """Windows of which every token but the first is scored."""
        n, width = windows.shape
        return cls(windows, np.ones(n, np.int64), np.full(n, width, np.int64))

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], first: Sequence[int]) -> "Sequences":
        """Sequences of different lengths, each with its first scored token."""
        length = np.array([len(row) for row in rows], np.int64)
        ids = np.zeros((len(rows), int(length.max())), np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        return cls(ids, np.array(first, np.int64), length)

    @property
    def mask(self) -> np.ndarray:
        """Which predictions are scored: bool, shape (n, width - 1), of the token that follows."""
        following = np.arange(1, self.ids.shape[1])
        return (following >= self.first[:, None]) & (following < self.length[:, None])

    @property
    def targets(self) -> np.ndarray:
        """The tokens that were to be predicted: int64, shape (tokens,)."""
        found: np.ndarray = self.ids[:, 1:][self.mask]
        return found

    @property
    def counts(self) -> np.ndarray:
        """Scored tokens of each: int64, shape (n,)."""
        found: np.ndarray = self.length - self.first
        return found


class TopTokens(NamedTuple):
    """Distributions over the next token, one for each scored token of some sequences.

    Attributes:
        ids: The most likely tokens: shape (tokens, k).
        logprobs: Theirs: float16, shape (tokens, k).
        rest: Log-probability of all others together: float16, shape (tokens,).
    """

    sequences: Sequences
    ids: np.ndarray
    logprobs: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, sequences: Sequences, reading: Reading) -> "TopTokens":
        """Those of a reading of the sequences."""
        mask = sequences.mask
        logprobs, rest = sixteen_bits(reading.top_logprobs[mask])
        return cls(sequences, reading.top_ids[mask], logprobs, rest)

    @classmethod
    def joined(cls, parts: Sequence["TopTokens"]) -> "TopTokens":
        """Those of the sequences of several, one after the other."""
        width = max(part.sequences.ids.shape[1] for part in parts)
        ids = [np.pad(s.ids, ((0, 0), (0, width - s.ids.shape[1]))) for s, *_ in parts]
        sequences = Sequences(
            np.concatenate(ids),
            np.concatenate([part.sequences.first for part in parts]),
            np.concatenate([part.sequences.length for part in parts]),
        )
        return cls(sequences, *map(np.concatenate, zip(*(part[1:] for part in parts), strict=True)))

    def take(self, rows: Sequence[int]) -> "TopTokens":
        """Those of some sequences, in that order."""
        stops = np.cumsum(self.sequences.counts)
        spans = [np.arange(stops[r] - self.sequences.counts[r], stops[r]) for r in rows]
        at = np.concatenate(spans)
        sequences = Sequences(*(part[list(rows)] for part in self.sequences))
        return TopTokens(sequences, self.ids[at], self.logprobs[at], self.rest[at])

    @property
    def at(self) -> np.ndarray:
        """The tokens to ask another model for: int32, shape (n, width - 1, k)."""
        n, width = self.sequences.ids.shape
        asked = np.zeros((n, width - 1, self.ids.shape[1]), np.int32)
        asked[self.sequences.mask] = self.ids
        return asked


def sixteen_bits(logprobs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of some tokens, and of all others together, as they are kept.

    Args:
        logprobs: float32, shape (tokens, k).

    Returns:
        float16, shapes (tokens, k) and (tokens,).
    """
    left = 1.0 - np.exp(logprobs.astype(np.float64)).sum(axis=1)
    rest = np.log(np.maximum(left, LEAST_REST))
    kept: np.ndarray = np.maximum(logprobs, LEAST).astype(np.float16)
    return kept, rest.astype(np.float16)


def chunks(total: int, size: int) -> Iterator[slice]:
    """Slices that cover `total` entries, at most `size` in each."""
    yield from (slice(start, min(start + size, total)) for start in range(0, total, size))
