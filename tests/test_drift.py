"""Windows, perplexity by window, the paired ratio and its interval, and where texts come from."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import drift
from gate.errors import (
    BackendUnavailableError,
    NonFiniteLogitsError,
    OutOfMemoryError,
    SettingsError,
)
from gate.settings import PerplexityText

TEXT = PerplexityText(file="text.txt", window=8, windows=5)
CONTENT = "abcdefgh" * 6


class Letters:
    """A model of letters: a token is a character, its log-probability a function of it."""

    def __init__(self, fits: int = 99, bos: int | None = None, nll: float = 1.0) -> None:
        self.fits, self.bos, self.nll = fits, bos, nll
        self.batches: list[int] = []

    def token_ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def logprobs(self, token_ids: np.ndarray) -> np.ndarray:
        self.batches.append(len(token_ids))
        if len(token_ids) > self.fits:
            raise OutOfMemoryError("too many", "Read fewer.")
        return (-self.nll * token_ids[:, 1:] / 100).astype(np.float32)


@given(st.integers(0, 300), st.integers(2, 40), st.integers(2, 9), st.sampled_from([None, 7]))
def test_windows_cover_the_text_once(tokens: int, window: int, most: int, bos: int | None) -> None:
    """In order, without overlap or gap, each begun by the BOS where there is one."""
    ids = np.arange(1000, 1000 + tokens)
    cut = drift.windows(ids, window, most, bos)
    assert cut.dtype == np.int64 and cut.shape == (len(cut), window)
    fresh = cut if bos is None else cut[:, 1:]
    assert fresh.ravel().tolist() == ids[: fresh.size].tolist()
    assert bos is None or (cut[:, 0] == bos).all()
    assert len(cut) == most or tokens - fresh.size < fresh.shape[1]


def test_perplexity_sums_by_window() -> None:
    """Every token but a window's first, in float64, in the order of the text."""
    told: list[int] = []
    result = drift.perplexity(Letters(), TEXT, CONTENT, told.append)
    expected = sum(ord(letter) for letter in "bcdefgh") / 100
    assert result.window_nll == pytest.approx([expected] * 5)
    assert (result.scored, result.window, result.name, sum(told)) == (7, 8, "text.txt", 5)
    assert result.value == pytest.approx(math.exp(expected / 7))


def test_a_bos_is_context_only() -> None:
    """Seven fresh tokens a window, all of them scored."""
    result = drift.perplexity(Letters(bos=1), TEXT, CONTENT)
    assert result.scored == 7
    assert result.window_nll[0] == pytest.approx(sum(map(ord, "abcdefg")) / 100)


def test_fewer_windows_are_read_together_when_memory_runs_out() -> None:
    """Halved until they fit; the result is the same; one window that does not fit is an error."""
    tight = Letters(fits=1)
    assert drift.perplexity(tight, TEXT, CONTENT) == drift.perplexity(Letters(), TEXT, CONTENT)
    assert tight.batches == [5, 2, 1, 1, 1, 1, 1]
    with pytest.raises(OutOfMemoryError):
        drift.perplexity(Letters(fits=0), TEXT, CONTENT)


@pytest.mark.parametrize("nll", [math.nan, math.inf])
def test_nan_is_no_perplexity(nll: float) -> None:
    with pytest.raises(NonFiniteLogitsError, match=r"text\.txt"):
        drift.perplexity(Letters(nll=nll), TEXT, CONTENT)


def test_a_text_too_short_is_refused() -> None:
    with pytest.raises(SettingsError, match="too few for two windows of 8"):
        drift.perplexity(Letters(), TEXT, "abcdefghabcdefg")


def test_reads_a_file_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("naïve\n", encoding="utf-8")
    assert drift.read_text(TEXT, tmp_path) == "naïve\n"
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"text\.txt cannot be read"):
        drift.read_text(TEXT, tmp_path)
    with pytest.raises(SettingsError, match=r"text\.txt cannot be read"):
        drift.read_text(TEXT, tmp_path / "elsewhere")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Puts what `datasets.load_dataset` gives in its place: a table, or an error."""

    def answer(value: Any) -> None:
        def load_dataset(name: str, config: str | None, split: str) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    return answer


class Table(dict[str, list[str]]):
    """Columns by name, as a data set has them."""

    @property
    def column_names(self) -> list[str]:
        return list(self)


def test_joins_the_rows_of_a_data_set(hub: Callable[[Any], None]) -> None:
    text = PerplexityText(dataset="org/set", column="body")
    hub(Table(body=["one", "", "two"]))
    assert drift.read_text(text, Path()) == "one\n\n\n\ntwo"
    hub(Table(text=["one"]))
    with pytest.raises(SettingsError, match="no column body"):
        drift.read_text(text, Path())


@pytest.mark.parametrize("error", [ConnectionError("no route"), FileNotFoundError("not here")])
def test_a_data_set_out_of_reach_is_named(error: Exception, hub: Callable[[Any], None]) -> None:
    hub(error)
    with pytest.raises(BackendUnavailableError, match=r"org/set.*test"):
        drift.read_text(PerplexityText(dataset="org/set"), Path())
