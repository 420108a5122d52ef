"""From logits to what a window's tokens were given: chunk by chunk, on the model's device."""

from typing import Any

import numpy as np

from gate.drift import Reading
from gate.errors import BackendError, NonFiniteLogitsError

CHUNK_LOGITS = 1 << 24
"""Logits that are float32 at a time, 64 MiB: those of a window of 8,192 would take gigabytes."""


def read(logits: Any, windows: np.ndarray, top: int, at: np.ndarray | None) -> Reading:
    """What the model says of a batch of windows; see `evaluate.Backend.read`.

    Args:
        logits: torch, shape (windows, window, vocabulary), in the model's dtype.
        windows: int64, shape (windows, window).
        top: Most likely tokens to give back, at most the vocabulary.
        at: Tokens whose log-probability is wanted: int32, shape (windows, window - 1, k).

    Raises:
        NonFiniteLogitsError: They are NaN or infinite.
        BackendError: `at` holds a token that the model does not know.
    """
    import torch

    vocabulary = logits.shape[-1]
    top = min(top, vocabulary)
    k = 0 if at is None else at.shape[2]
    if at is not None and at.size and not 0 <= at.min() <= at.max() < vocabulary:
        raise BackendError(
            f"the baseline knows tokens beyond this model's {vocabulary:,}",
            "Make the baseline again from this model's reference: gate eval REFERENCE -o BASELINE",
        )
    found = Reading.empty(len(windows), windows.shape[1], top, k)
    positions = windows.shape[1] - 1
    rows = max(1, CHUNK_LOGITS // vocabulary)
    with torch.inference_mode():
        for index, ids in enumerate(windows):
            for start in range(0, positions, rows):
                part = slice(start, min(start + rows, positions))
                asked = None if at is None else at[index, part]
                _fill(found, index, part, logits[index, part].float(), ids[1:][part], asked)
    return found


def _fill(
    found: Reading, index: int, part: slice, scores: Any, targets: np.ndarray, at: Any
) -> None:
    """Some positions of one window; scores are float32, shape (positions, vocabulary)."""
    import torch

    # A row's largest: entries that a model masks with -inf are no error.
    if not scores.amax(-1).isfinite().all():
        raise NonFiniteLogitsError(
            "the model computed logits that are NaN or infinite",
            "Look for scales that are zero, infinite or NaN: gate lint CHECKPOINT",
        )
    total = scores.logsumexp(-1, keepdim=True)

    def given(ids: np.ndarray) -> np.ndarray:
        wanted = torch.from_numpy(ids.astype(np.int64)).to(scores.device)
        values: np.ndarray = (scores.gather(-1, wanted) - total).cpu().numpy()
        return values

    found.logprobs[index, part] = given(targets[:, None])[:, 0]
    if at is not None:
        found.at_logprobs[index, part] = given(at)
    top = found.top_ids.shape[2]
    if top:
        ids = _top_ids(scores, top)
        found.top_ids[index, part] = ids
        found.top_logprobs[index, part] = given(ids)


def _top_ids(scores: Any, top: int) -> np.ndarray:
    """The highest scores' ids; first the lowest of those that tie, as greedy decoding takes it.

    Ties are common in bfloat16, and `topk` breaks them as it likes.
    """
    first = scores.argmax(-1, keepdim=True)
    if top > 1:
        first = scores.scatter(-1, first, float("inf")).topk(top).indices
    ids: np.ndarray = first.cpu().numpy()
    return ids
