"""Reading windows: as many together as memory holds, whatever yields the logits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import build
from tiny_models import opened

from gate.backends.hf import Hf
from gate.drift import reading
from gate.errors import BackendError, OutOfMemoryError
from gate.settings import DEFAULT

pytestmark = pytest.mark.model

VOCABULARY = 32
WINDOWS = np.arange(7 * 8, dtype=np.int64).reshape(7, 8) % VOCABULARY


class Small(Hf):
    """Logits that hang on the last token, of as many windows together as fit."""

    def __init__(self, path: Path, fits: int = 99) -> None:
        super().__init__(*opened(path), harness=None, settings=DEFAULT)
        self.fits = fits
        self.sizes: list[int] = []

    def _forward(self, batches: Sequence[np.ndarray]) -> Iterator[Any]:
        import torch

        for windows in batches:
            self.sizes.append(len(windows))
            if len(windows) > self.fits:
                raise OutOfMemoryError("too many", "Read fewer.")
            table = torch.from_numpy(np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY)))
            yield table[torch.from_numpy(windows)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("windows") / "model", "FP8")


def test_fewer_windows_are_read_together_when_memory_runs_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved until they fit, what was read kept; one window that does not fit is an error."""
    monkeypatch.setattr(reading, "BATCH_TOKENS", 5 * 8)
    at = np.arange(7 * 7 * 3, dtype=np.int32).reshape(7, 7, 3) % VOCABULARY
    told: list[int] = []
    whole, tight = Small(path), Small(path, fits=2)
    expected = whole.read(WINDOWS, top=4, at=at)
    found = tight.read(WINDOWS, top=4, at=at, progress=told.append)
    assert whole.sizes == [5, 2] and tight.sizes == [5, 2, 2, 2, 1]
    assert told == [2, 2, 2, 1]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours == theirs).all()
    with pytest.raises(OutOfMemoryError):
        Small(path, fits=0).read(WINDOWS)


def test_more_tokens_than_there_are_cannot_be_asked_for(path: Path) -> None:
    assert Small(path).read(WINDOWS, top=64).top_ids.shape == (7, 7, VOCABULARY)


def test_a_token_of_another_vocabulary_is_refused(path: Path) -> None:
    beyond = WINDOWS + 10**6
    with pytest.raises(BackendError, match=r"token 1,000,031 is none of this model's"):
        Small(path).read(beyond)
