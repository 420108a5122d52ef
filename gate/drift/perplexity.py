"""Perplexity over fixed windows, paired by window.

Every token but a window's first is scored once, in one forward pass, given all that stand before
it in its window. Baseline and candidate read the same windows, so their difference is paired:
about a hundred times fewer tokens show the same change than two perplexities would.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from gate.drift.reading import tokens_digest
from gate.errors import NonFiniteLogitsError
from gate.records import PerplexityResult
from gate.settings import PerplexityText


def perplexity(
    text: PerplexityText,
    content: str,
    windows: np.ndarray,
    logprobs: np.ndarray,
    window_ids: Sequence[int],
) -> PerplexityResult:
    """Negative log-likelihood of each window of a text.

    Args:
        text: How the text was cut.
        content: The text itself.
        windows: All of them: int64, shape (windows, window).
        logprobs: Of every token but the first of each window that was read: float32, shape
            (read, window - 1).
        window_ids: The windows that were read, in that order.

    Raises:
        NonFiniteLogitsError: The model gives a token no finite probability.
    """
    nll = -logprobs.sum(axis=1, dtype=np.float64)
    if not np.isfinite(nll).all():
        raise NonFiniteLogitsError(
            f"the model gives tokens of {text.label} no finite probability",
            "Look for scales that are zero, infinite or NaN: gate lint CHECKPOINT",
        )
    by_window = dict(zip(window_ids, nll.tolist(), strict=True))
    everything = len(by_window) == len(windows)
    ids = sorted(by_window) if everything else list(window_ids)
    return PerplexityResult(
        name=text.label,
        text_digest=hashlib.sha256(content.encode()).hexdigest(),
        tokens_digest=tokens_digest(windows),
        window=text.window,
        window_nll=tuple(by_window[i] for i in ids),
        scored=text.window - 1,
        window_ids=() if everything else tuple(ids),
    )
