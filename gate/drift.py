"""What can be measured by reading alone: perplexity over fixed windows, paired by window.

Every token but a window's first is scored once, in one forward pass, given all that stand before
it in its window. Baseline and candidate read the same windows, so their difference is paired:
about a hundred times fewer tokens show the same change than two perplexities would.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gate.errors import (
    BackendUnavailableError,
    NonFiniteLogitsError,
    OutOfMemoryError,
    SettingsError,
)
from gate.offline import cached_files, cached_only_if_unreachable
from gate.records import PerplexityResult
from gate.settings import PerplexityText

BATCH_TOKENS = 2048
"""Tokens that are read together, at least one window."""


class Reader(Protocol):
    """What a backend must do to have its perplexity measured."""

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before every text; None if it puts none."""
        ...

    def token_ids(self, text: str) -> np.ndarray:
        """The text's tokens without special ones: int64, shape (tokens,)."""
        ...

    def logprobs(self, token_ids: np.ndarray) -> np.ndarray:
        """Log-probability in nats of every token but the first of each window."""
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


def perplexity(
    backend: Reader,
    text: PerplexityText,
    content: str,
    on_progress: Callable[[int], None] | None = None,
) -> PerplexityResult:
    """Negative log-likelihood of each window of a text, prefill only.

    Args:
        backend: Entered already.
        text: How the text is cut.
        content: The text itself.
        on_progress: Told how many windows were read since.

    Raises:
        SettingsError: The text is too short for two windows.
        OutOfMemoryError: One window does not fit.
        NonFiniteLogitsError: The model computed NaN or infinity.
    """
    ids = text_windows(backend, text, content)
    batch = max(1, BATCH_TOKENS // text.window)
    sums: list[float] = []
    while len(sums) < len(ids):
        chunk = ids[len(sums) : len(sums) + batch]
        try:
            logprobs = backend.logprobs(chunk)
        except OutOfMemoryError:
            if len(chunk) == 1:
                raise
            batch = len(chunk) // 2
            continue
        nll = -logprobs.sum(axis=1, dtype=np.float64)
        if not np.isfinite(nll).all():
            raise NonFiniteLogitsError(
                f"the model gives tokens of {text.label} no finite probability",
                "Look for scales that are zero, infinite or NaN: gate lint CHECKPOINT",
            )
        sums += nll.tolist()
        if on_progress:
            on_progress(len(chunk))
    return PerplexityResult(
        name=text.label,
        text_digest=hashlib.sha256(content.encode()).hexdigest(),
        tokens_digest=tokens_digest(ids),
        window=text.window,
        window_nll=tuple(sums),
        scored=text.window - 1,
    )


def read_text(text: PerplexityText, root: Path) -> str:
    """A perplexity's text: a file, or the rows of a data set's column with blank lines between.

    Args:
        text: Where it lies.
        root: Directory to which a file's path is relative.

    Raises:
        SettingsError: The file cannot be read, or the data set has no such column.
        BackendUnavailableError: The data set is neither here nor to be had.
    """
    if text.file is None:
        return _read_dataset(text)
    path = root / text.file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the text {path} cannot be read: {error}", "Name a UTF-8 file in the settings."
        ) from error


def data_files(text: PerplexityText) -> tuple[Path, ...]:
    """A data set's files in the cache; it is fetched where it is not there.

    Raises:
        BackendUnavailableError: It is neither here nor to be had.
    """
    return cached_files(_dataset(text), f"text {text.label}")


def _read_dataset(text: PerplexityText) -> str:
    rows = _dataset(text)
    if text.column not in rows.column_names:
        raise SettingsError(
            f"data set {text.dataset} has no column {text.column}",
            f"Name one of: {', '.join(rows.column_names)}",
        )
    return "\n\n".join(str(row) for row in rows[text.column])


def _dataset(text: PerplexityText) -> Any:
    import datasets

    unavailable = BackendUnavailableError(
        f"data set {text.dataset} ({text.name or 'default'}, {text.split}) is not on this machine "
        "and the hub does not answer",
        "Name a local text instead: perplexity: {file: text.txt}",
    )
    try:
        with cached_only_if_unreachable():
            return datasets.load_dataset(str(text.dataset), text.name, split=text.split)
    except (OSError, ValueError) as error:
        raise unavailable from error
