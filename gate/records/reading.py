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


class Agreement(Record):
    """How far a runtime's own computation lies from the weights that the files hold, decoded.

    Attributes:
        kl: Mean KL(decoded || runtime) in nats, over the most likely tokens and the rest as one;
            None where the decoded weights compute NaN or infinity.
        same_top: Share of tokens whose most likely candidate is the same; None likewise.
        limit: What `kl` is of a sound pair, at most.
        tokens: How many it was measured on.
        reference: How the decoded weights were computed, in words.
    """

    kl: float | None
    same_top: float | None
    limit: float
    tokens: int
    reference: str


class Targeted(Record):
    """The runtime and the GPU that were meant, and what was measured beside what they compute.

    Attributes:
        name: Runtime with version, and the GPU.
        requantized: Layers whose weights the runtime quantizes again, as was done here.
        kl: How far those weights lie from the stored ones, inputs as they are: mean KL(stored ||
            served) in nats; None where that was not measured.
        tokens: How many it was measured on.
        differs: What is computed otherwise there, each as a sentence; empty for nothing.
        unknown: What may be, likewise.
    """

    name: str
    requantized: int = 0
    kl: float | None = None
    tokens: int = 0
    differs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


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
