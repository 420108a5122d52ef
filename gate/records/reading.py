"""What was measured by reading alone: log-likelihoods, and what rounding does to them."""

import math

from gate.records.scoring import EarlyStop
from gate.records.storing import Record


class PerplexityResult(Record):
    """Prefill-only negative log-likelihoods over fixed windows of one text.

    Attributes:
        name: What the report calls it.
        text_digest: SHA-256 of the text.
        tokens_digest: SHA-256 of the token ids of all windows (int64, little-endian), whether or
            not all were read.
        window: Tokens in a window; the first one is context only.
        window_nll: Sum over a window's scored tokens, in nats, one entry a window.
        scored: Scored tokens in each window.
        window_ids: Which windows `window_nll` belongs to; empty for all in the order of the text.
        early_stop: Why the other windows were not read.
    """

    name: str
    text_digest: str
    tokens_digest: str
    window: int
    window_nll: tuple[float, ...]
    scored: int
    window_ids: tuple[int, ...] = ()
    early_stop: EarlyStop | None = None

    @property
    def value(self) -> float:
        """exp(mean NLL)."""
        total = math.fsum(self.window_nll)
        mean = total / (self.scored * len(self.window_nll)) if self.window_nll else math.nan
        return math.exp(mean) if mean < 700 else math.inf if mean >= 700 else math.nan


class RoundingFloor(Record):
    """What a last-bit change in the rounding of activations alone does to the model.

    Attributes:
        kl: Mean KL divergence in nats between the two roundings.
        codes_changed: Share of activation codes that differ.
        tokens: How many it was measured on.
    """

    kl: float
    codes_changed: float
    tokens: int
