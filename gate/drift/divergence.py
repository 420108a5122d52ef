"""How far a candidate's distributions lie from the stored ones of the baseline."""

import math

import numpy as np

from gate.drift.reading import Reading
from gate.drift.top_tokens import TopTokens, chunks, sixteen_bits
from gate.records import Distributions, Drift

CHUNK_TOKENS = 8192
"""Tokens whose distributions are float64 at a time."""


def kl_divergence(top: TopTokens, at_logprobs: np.ndarray) -> np.ndarray:
    """KL(baseline || candidate) of each token over the baseline's top tokens and the rest as one.

    Joining outcomes loses information and adds none, so this is never more than the divergence
    over the whole vocabulary. Both sides are rounded to 16 bits alike: a model has none from
    itself.

    Args:
        top: The baseline's.
        at_logprobs: The candidate's for the same tokens: float32, shape (tokens, k).

    Returns:
        Nats: float64, shape (tokens,), nowhere negative.

    Source: the log sum inequality; Cover and Thomas, Elements of Information Theory, 2.7.1.
    """
    found = np.empty(len(top.ids))
    for part in chunks(len(found), CHUNK_TOKENS):
        ours = _normalized(top.logprobs[part], top.rest[part])
        theirs = _normalized(*sixteen_bits(at_logprobs[part]))
        found[part] = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    # Of equal distributions the sum may be a rounding error below zero; NaN stays NaN.
    return np.maximum(found, 0.0)


def _normalized(logprobs: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Log-probabilities that sum to one: float64, shape (tokens, k + 1)."""
    joined = np.concatenate([logprobs, rest[:, None]], axis=1).astype(np.float64)
    largest = joined.max(axis=1, keepdims=True)
    total = np.log(np.exp(joined - largest).sum(axis=1, keepdims=True)) + largest
    found: np.ndarray = joined - total
    return found


def measure(record: Distributions, top: TopTokens, reading: Reading) -> Drift:
    """What changed between the baseline's distributions and a candidate's on the same tokens.

    Args:
        record: Of the baseline's distributions.
        top: Those of the sequences that were read.
        reading: The candidate's, with its most likely token and `top.at`.
    """
    mask, targets = top.sequences.mask, top.sequences.targets
    counts = top.sequences.counts
    divergence = kl_divergence(top, reading.at_logprobs[mask])
    ours, theirs = top.ids[:, 0], reading.top_ids[mask][:, 0]
    same = ours == theirs
    before, after = ours == targets, theirs == targets
    return Drift(
        name=record.name,
        source=record.source,
        k=record.k,
        distributions=record.digest,
        tokens=len(targets),
        windows=len(counts),
        kl=float(divergence.mean()),
        kl_stderr=_clustered(divergence, counts),
        kl_p99=float(np.quantile(divergence, 0.99)),
        kl_max=float(divergence.max()),
        same_top=float(same.mean()),
        same_top_stderr=_clustered(same.astype(np.float64), counts),
        losses=int((before & ~after).sum()),
        gains=int((after & ~before).sum()),
    )


def _clustered(values: np.ndarray, counts: np.ndarray) -> float | None:
    """Standard error of a mean over tokens, the window as the cluster; None below two windows.

    Source: ratio estimator, https://arxiv.org/abs/2411.00640 section 2.2.
    """
    n = len(counts)
    if n < 2:
        return None
    sums = np.add.reduceat(values, np.cumsum(counts) - counts)
    residuals = sums - values.mean() * counts
    squares = float((residuals**2).sum())
    return math.sqrt(squares * n / (n - 1)) / len(values) if math.isfinite(squares) else None
