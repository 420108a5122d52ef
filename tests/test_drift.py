"""Windows, perplexity by window, the paired ratio and its interval, and where texts come from."""

import math
from collections.abc import Callable, Sequence
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
    SettingsError,
)
from gate.records import PerplexityResult
from gate.settings import PerplexityMetric, PerplexityText

TEXT = PerplexityText(file="text.txt", window=8, windows=5)
CONTENT = "abcdefgh" * 6


class Letters:
    """A model of letters: a token is a character, its log-probability a function of it."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos = bos

    def token_ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def read(self, windows: np.ndarray, **_: Any) -> drift.Reading:
        found = drift.Reading.empty(len(windows), windows.shape[1], 0, 0)
        found.logprobs[:] = -windows[:, 1:] / 100
        return found


def measured(backend: Letters, ids: Sequence[int] | None = None) -> PerplexityResult:
    """Perplexity of some windows of the text, all of them by default."""
    windows = drift.text_windows(backend, TEXT, CONTENT)
    read = list(range(len(windows))) if ids is None else list(ids)
    logprobs = backend.read(windows[read]).logprobs
    return drift.perplexity(TEXT, CONTENT, windows, logprobs, read)


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
    result = measured(Letters())
    expected = sum(ord(letter) for letter in "bcdefgh") / 100
    assert result.window_nll == pytest.approx([expected] * 5)
    assert (result.scored, result.window, result.name, result.window_ids) == (7, 8, "text.txt", ())
    assert result.value == pytest.approx(math.exp(expected / 7))


def test_windows_that_were_read_in_another_order_are_stored_in_that_of_the_text() -> None:
    assert measured(Letters(bos=1), [3, 0, 4, 2, 1]) == measured(Letters(bos=1))


def test_some_windows_say_which_they_are() -> None:
    whole, some = measured(Letters(bos=1)), measured(Letters(bos=1), [4, 1])
    assert some.window_ids == (4, 1)
    assert some.window_nll == (whole.window_nll[4], whole.window_nll[1])
    assert some.tokens_digest == whole.tokens_digest


def test_a_bos_is_context_only() -> None:
    """Seven fresh tokens a window, all of them scored."""
    result = measured(Letters(bos=1))
    assert result.scored == 7
    assert result.window_nll[0] == pytest.approx(sum(map(ord, "abcdefg")) / 100)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_nan_is_no_perplexity(value: float) -> None:
    windows = drift.text_windows(Letters(), TEXT, CONTENT)
    logprobs = np.full((5, 7), value, np.float32)
    with pytest.raises(NonFiniteLogitsError, match=r"text\.txt"):
        drift.perplexity(TEXT, CONTENT, windows, logprobs, range(5))


def test_a_text_too_short_is_refused() -> None:
    with pytest.raises(SettingsError, match="too few for two windows of 8"):
        drift.text_windows(Letters(), TEXT, "abcdefghabcdefg")


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


def test_long_windows_are_another_measure_of_the_same_text() -> None:
    short = PerplexityText(dataset="org/set", name="raw")
    long = short.model_copy(update={"window": 8192})
    assert (short.label, long.label) == ("raw/test", "raw/test 8k")


@pytest.mark.parametrize(
    ("context", "kept"),
    [(4096, ["gates 8k", "short"]), (8192, ["gates 8k", "short", "long 8k"]), (None, None)],
)
def test_windows_beyond_the_context_are_left_out_unless_they_gate(
    context: int | None, kept: list[str] | None
) -> None:
    """Gating texts come first; a context that is not known leaves nothing out."""
    metrics = [
        PerplexityMetric(perplexity=PerplexityText(file="short", window=512)),
        PerplexityMetric(perplexity=PerplexityText(file="long", window=8192)),
        PerplexityMetric(perplexity=PerplexityText(file="gates", window=8192), max_kl=0.1),
    ]
    found, unread = drift.fitting(metrics, context)
    expected = kept or ["gates 8k", "short", "long 8k"]
    assert [metric.perplexity.label for metric in found] == expected
    assert len(unread) == 3 - len(expected)
    assert all("long 8k" in sentence and "8,192 tokens" in sentence for sentence in unread)
