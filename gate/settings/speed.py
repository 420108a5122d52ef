"""Whether speed and memory are measured, and what they may be."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from gate.settings.metrics import Part, as_written

FEWEST_REPEATS = 3
"""Fewer runs show no range, and one slow run would decide."""

Positive = Annotated[Decimal, Field(gt=0, allow_inf_nan=False), BeforeValidator(as_written)]
Share = Annotated[Decimal, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(as_written)]


class Speed(Part):
    """Speed and memory, measured on the loaded model; every limit is off unless it is stated.

    Attributes:
        batch: Sequences generated together; one alone is measured as well.
        prompt_tokens: Random tokens that each sequence begins with.
        new_tokens: Tokens that each sequence is continued by.
        repeats: Runs that count, of which the median is taken.
        warmup: Runs before them that do not count.
        max_slowdown: Share by which tokens/s may be below the baseline's, measured alike.
        max_ms_per_token: Longest time between two tokens of a sequence, at `batch`.
        min_tokens_per_s: Least decoded tokens/s of all sequences together, at `batch`.
        max_peak_bytes: Most memory in use.
        gpu_hour_price: Of one device, for the cost of a million new tokens.
    """

    batch: int = Field(default=8, ge=1, le=4096)
    prompt_tokens: int = Field(default=512, ge=1, le=1 << 20)
    new_tokens: int = Field(default=128, ge=2, le=1 << 20)
    repeats: int = Field(default=3, ge=1, le=100)
    warmup: int = Field(default=1, ge=0, le=100)
    max_slowdown: Share | None = None
    max_ms_per_token: Positive | None = None
    min_tokens_per_s: Positive | None = None
    max_peak_bytes: int | None = Field(default=None, ge=1)
    gpu_hour_price: Positive | None = None

    @property
    def gates(self) -> bool:
        """Whether it has a limit."""
        limits = (self.max_slowdown, self.max_ms_per_token, self.min_tokens_per_s)
        return any(limit is not None for limit in (*limits, self.max_peak_bytes))

    @model_validator(mode="after")
    def _range_needs_repeats(self) -> "Speed":
        if self.max_slowdown is not None and self.repeats < FEWEST_REPEATS:
            raise ValueError(f"max_slowdown needs repeats of at least {FEWEST_REPEATS}")
        return self
