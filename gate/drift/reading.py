"""What reading a text gives: the contract `Reader`, and how a text is cut into windows."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gate.errors import SettingsError
from gate.settings import PerplexityText

BATCH_TOKENS = 2048
"""Tokens of windows that are read together, at least one window."""


def together(window: int) -> int:
    """How many windows of so many tokens make a batch."""
    return max(1, BATCH_TOKENS // window)


class Reading(NamedTuple):
    """What a model says of every token of some windows but the first, given those before it.

    Attributes:
        logprobs: Of the token itself, in nats: float32, shape (windows, window - 1).
        top_ids: The most likely tokens, first what greedy decoding takes: int32, shape (windows,
            window - 1, top).
        top_logprobs: Theirs: float32, the same shape.
        at_logprobs: Of the tokens that were asked for: float32, shape (windows, window - 1, k).
    """

    logprobs: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray
    at_logprobs: np.ndarray

    @classmethod
    def empty(cls, windows: int, window: int, top: int, k: int) -> "Reading":
        """Room for the reading of that many windows."""
        shape = windows, window - 1
        return cls(
            np.empty(shape, np.float32),
            np.empty((*shape, top), np.int32),
            np.empty((*shape, top), np.float32),
            np.empty((*shape, k), np.float32),
        )

    @classmethod
    def joined(cls, parts: Sequence["Reading"]) -> "Reading":
        """Windows of several readings one after the other."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class Reader(Protocol):
    """What a backend must do to have anything measured by reading alone."""

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before every text; None if it puts none."""
        ...

    def token_ids(self, text: str) -> np.ndarray:
        """The text's tokens without special ones: int64, shape (tokens,)."""
        ...

    def read(
        self,
        windows: np.ndarray,
        *,
        top: int = 0,
        at: np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """Read windows, as many together as fit; see `evaluate.Backend`."""
        ...


def windows(token_ids: np.ndarray, window: int, windows: int, bos: int | None) -> np.ndarray:
    """The first tokens of a text in windows that do not overlap; the rest is left out.

    Args:
        token_ids: int64, shape (tokens,).
        window: Tokens in a window, `bos` included.
        windows: Most windows.
        bos: Put before each window; None for nothing.

    Returns:
        int64, shape (n, window), n <= `windows`.
    """
    fresh = window - (bos is not None)
    n = min(windows, len(token_ids) // fresh)
    cut = token_ids[: n * fresh].reshape(n, fresh).astype(np.int64)
    return cut if bos is None else np.insert(cut, 0, bos, axis=1)


def text_windows(backend: Reader, text: PerplexityText, content: str) -> np.ndarray:
    """The windows of a text as a backend's tokenizer sees it.

    Raises:
        SettingsError: The text is too short for two windows.
    """
    token_ids = backend.token_ids(content)
    cut = windows(token_ids, text.window, text.windows, backend.bos)
    if len(cut) < 2:
        raise SettingsError(
            f"{text.label} has {len(token_ids):,} tokens: too few for two windows of {text.window}",
            "Name a longer text, or set a smaller window in the settings.",
        )
    return cut


def tokens_digest(token_ids: np.ndarray) -> str:
    """SHA-256 of token ids, as `PerplexityResult` keeps it."""
    return hashlib.sha256(token_ids.astype("<i8").tobytes()).hexdigest()
