"""How far a model's next-token distributions lie from those of the baseline."""

from typing import Literal

from pydantic import Field

from gate.records.storing import Record, Sha256

Source = Literal["text", "answers"]
"""What was read: a perplexity's text, or the baseline's own answers to a task."""


class Distributions(Record):
    """The baseline's next-token distributions over fixed token ids, in a file beside the result.

    Attributes:
        name: The text's label, or the task.
        k: Most likely tokens that are kept of each distribution; the others share one number.
        tokens: Distributions, one for each scored token.
        digest: SHA-256 of the file, which is called by it: `<digest>.npz`.
    """

    name: str
    source: Source
    k: int = Field(ge=1, le=4096)
    tokens: int = Field(ge=1, le=1 << 26)
    digest: Sha256


class Drift(Record):
    """How far the candidate's distributions lie from the baseline's on the same tokens.

    KL(baseline || candidate) in nats over the baseline's `k` most likely tokens and the rest as
    one: a lower bound of the divergence over the whole vocabulary.

    Attributes:
        name, source, k: As in `Distributions`.
        distributions: The digest of the baseline's.
        tokens: Scored tokens.
        windows: Windows, or answers, that they lie in.
        kl, kl_p99, kl_max: Mean, 99th percentile and largest over the tokens.
        kl_stderr, same_top_stderr: Standard errors, the window as the cluster; None below two.
        same_top: Share of tokens whose most likely candidate is the same.
        losses, gains: Next tokens of the text that only the baseline, or only the candidate, holds
            for most likely.
    """

    name: str
    source: Source
    k: int
    distributions: str
    tokens: int
    windows: int
    kl: float
    kl_stderr: float | None
    kl_p99: float
    kl_max: float
    same_top: float
    same_top_stderr: float | None
    losses: int
    gains: int
