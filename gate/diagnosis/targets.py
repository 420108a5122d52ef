"""What the reference expects after every token, and how far logits are from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TOP_TOKENS = 128
"""Most likely tokens of the reference that are kept; the others share one number."""

LEAST = -1e4
"""Log-probability below which a token is impossible."""

LEAST_REST = 2.0**-24
"""Probability that the rest always has: what float32 sums cannot tell from none."""

CHUNK_LOGITS = 1 << 24
"""Logits that are float32 at a time: 64 MiB."""


@dataclass(frozen=True)
class Distance:
    """How far a model is from the reference on some windows.

    Attributes:
        divergence: KL(reference || model) in nats, the mean over the tokens of each window:
            float64, shape (windows,).
        nll: Sum over the tokens of each window, in nats, of the model: the same shape.
    """

    divergence: np.ndarray
    nll: np.ndarray

    @property
    def mean(self) -> float:
        """Divergence over all windows, in nats a token."""
        return float(self.divergence.mean())

    @classmethod
    def joined(cls, parts: "list[Distance]") -> "Distance":
        """Several batches' one after the other."""
        return cls(
            np.concatenate([part.divergence for part in parts]),
            np.concatenate([part.nll for part in parts]),
        )


@dataclass(frozen=True)
class Targets:
    """The reference's distributions over one batch, those after its last token left out.

    Attributes:
        following: The tokens that did follow: int64, shape (windows, window - 1, 1).
        ids: The most likely tokens: int64, shape (windows, window - 1, k).
        logprobs: Theirs, and that of all others together: float32, shape (..., k + 1).
        nll: The reference's own, see `Distance`.
    """

    following: "Tensor"
    ids: "Tensor"
    logprobs: "Tensor"
    nll: np.ndarray

    @classmethod
    def of(cls, windows: np.ndarray, logits: "Tensor", top: int = TOP_TOKENS) -> "Targets":
        """Those of the reference's logits.

        Args:
            windows: int64, shape (windows, window).
            logits: Shape (windows, window, vocabulary).
            top: Tokens to keep, at most the vocabulary less one.
        """
        import torch

        k = min(top, logits.shape[-1] - 1)
        count, positions = windows.shape[0], windows.shape[1] - 1
        following = torch.from_numpy(windows[:, 1:].copy()).to(logits.device)[..., None]
        ids = torch.empty(count, positions, k, dtype=torch.int64, device=logits.device)
        logprobs = torch.empty(count, positions, k + 1, device=logits.device)
        nll = np.zeros(count)
        for window, part in _parts(logits):
            scores = logits[window, part].float()
            scores -= scores.logsumexp(-1, keepdim=True)
            found = scores.topk(k)
            ids[window, part] = found.indices
            logprobs[window, part] = _with_rest(found.values)
            nll[window] -= float(scores.gather(-1, following[window, part]).double().sum())
        return cls(following, ids, logprobs, nll)

    def distance(self, logits: "Tensor") -> Distance:
        """How far a model's logits are: shape (windows, window, vocabulary)."""
        count, positions = self.ids.shape[:2]
        divergence, nll = np.zeros(count), np.zeros(count)
        for window, part in _parts(logits):
            scores = logits[window, part].float()
            total = scores.logsumexp(-1, keepdim=True)
            ours = self.logprobs[window, part]
            theirs = _with_rest(scores.gather(-1, self.ids[window, part]) - total)
            divergence[window] += float((ours.exp() * (ours - theirs)).double().sum())
            given = scores.gather(-1, self.following[window, part]) - total
            nll[window] -= float(given.double().sum())
        return Distance(divergence / positions, nll)

    def gradient(self, logits: "Tensor") -> "Tensor":
        """Of the divergence, summed over the tokens, by the logits: their shape and dtype."""
        import torch

        found = torch.zeros_like(logits)
        for window, part in _parts(logits):
            share = logits[window, part].float().softmax(-1)
            ids, wanted = self.ids[window, part], self.logprobs[window, part].exp()
            top = share.gather(-1, ids)
            rest = (1 - top.sum(-1, keepdim=True)).clamp(min=LEAST_REST)
            share *= 1 - wanted[..., -1:] / rest
            found[window, part] = share.scatter(-1, ids, top - wanted[..., :-1]).to(found.dtype)
        return found


def _with_rest(logprobs: "Tensor") -> "Tensor":
    """Log-probabilities of some tokens, and of all others together behind them."""
    import torch

    rest = (1 - logprobs.exp().sum(-1, keepdim=True)).clamp(min=LEAST_REST).log()
    return torch.cat([logprobs.clamp(min=LEAST), rest], -1)


def _parts(logits: "Tensor") -> Iterator[tuple[int, slice]]:
    """Windows, and chunks of their positions but the last."""
    windows, window, vocabulary = logits.shape
    rows = max(1, CHUNK_LOGITS // vocabulary)
    for index in range(windows):
        for start in range(0, window - 1, rows):
            yield index, slice(start, min(start + rows, window - 1))
