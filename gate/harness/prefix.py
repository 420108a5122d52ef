"""Log-likelihoods of several continuations of one context, whose keys are computed once.

A multiple-choice document is one context and a continuation for each choice. lm-eval reads the
context again for each of them, unless they are single tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gate.harness.decoding import copied, empty_cache, forward, require_finite

if TYPE_CHECKING:
    import torch

Request = tuple[Any, list[int], list[int]]
"""As lm-eval has it: what was asked, the context's tokens, the continuation's."""

Answer = tuple[float, bool]
"""Log-probability in nats of a continuation, and whether each of its tokens is the likeliest."""


def shared(requests: Sequence[Request], max_length: int) -> list[list[int]]:
    """Places of requests that have their context in common, longest context first.

    Args:
        requests: All of a batch.
        max_length: Tokens that the model can read; lm-eval cuts a context that is too long for
            its continuation, so that those requests have no context in common.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, (asked, context, continuation) in enumerate(requests):
        # A text in parts has nothing asked of each, and no context worth keeping.
        if asked is not None and len(context) + len(continuation) <= max_length + 1:
            groups.setdefault(tuple(context), []).append(place)
    found = [
        places
        for places in groups.values()
        if len(places) > 1 and any(len(requests[place][2]) > 1 for place in places)
    ]
    return sorted(found, key=lambda places: -len(requests[places[0]][1]))


def answered(lm: Any, requests: Sequence[Request]) -> dict[int, Answer]:
    """Place to answer of the requests that share their context with others.

    Args:
        lm: lm-eval's wrapper around the model; as many contexts, and then continuations, are
            read together as its batch holds.
        requests: All of a batch.
    """
    groups, rows = shared(requests, lm.max_length), lm.batch_size_per_gpu
    found: dict[int, Answer] = {}
    for start in range(0, len(groups), rows):
        chunk = groups[start : start + rows]
        contexts = [requests[places[0]][1] for places in chunk]
        continuations = [[requests[place][2] for place in places] for places in chunk]
        answers = loglikelihoods(lm.model, contexts, continuations, rows, lm.softmax_dtype)
        for places, each in zip(chunk, answers, strict=True):
            found |= dict(zip(places, each, strict=True))
    return found


def loglikelihoods(
    model: Any,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[list[int]]],
    rows: int,
    dtype: "torch.dtype | None" = None,
) -> list[list[Answer]]:
    """What the model says of each context's continuations.

    Args:
        model: See `decoding.is_supported`.
        contexts: Tokens; read together, padded on the left.
        continuations: Tokens of each context's.
        rows: Continuations that are read together.
        dtype: Of the log-softmax; None for the model's own.

    Raises:
        NonFiniteLogitsError: The model computed NaN or infinity.
    """
    import torch

    device = model.device
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    cache = empty_cache(model)
    flat = [(place, tokens) for place, each in enumerate(continuations) for tokens in each]
    answers: list[Answer] = []
    with torch.inference_mode():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        firsts = _logprobs(model, dtype, ids, mask, positions, cache, kept=1)
        for start in range(0, len(flat), rows):
            chunk = flat[start : start + rows]
            places = torch.tensor([place for place, _ in chunk], device=device)
            longest = max(len(tokens) for _, tokens in chunk)
            logprobs = firsts[places]
            if longest > 1:
                rest = _rest([tokens for _, tokens in chunk], longest - 1, device)
                before = mask[places]
                after = torch.arange(longest - 1, device=device) + before.sum(-1, keepdim=True)
                theirs = copied(cache)
                theirs.batch_select_indices(places)
                whole = torch.cat([before, torch.ones_like(rest)], dim=-1)
                read = _logprobs(model, dtype, rest, whole, after, theirs, kept=0)
                logprobs = torch.cat([logprobs, read], dim=1)
            answers += [_answer(row, c) for row, (_, c) in zip(logprobs, chunk, strict=True)]
    found = iter(answers)
    return [[next(found) for _ in each] for each in continuations]


def _rest(continuations: Sequence[list[int]], width: int, device: Any) -> "torch.Tensor":
    """What is read of the continuations, all but their last tokens: padded on the right."""
    import torch

    cut = [tokens[:-1] for tokens in continuations]
    return torch.tensor([each + [0] * (width - len(each)) for each in cut], device=device)


def _logprobs(
    model: Any, dtype: Any, ids: Any, mask: Any, positions: Any, cache: Any, kept: int
) -> "torch.Tensor":
    """Shape (rows, kept, vocabulary), or of every token where `kept` is 0."""
    found = require_finite(forward(model, ids, mask, positions, cache, kept))
    logprobs: torch.Tensor = found.log_softmax(-1, dtype=dtype)
    return logprobs


def _answer(logprobs: "torch.Tensor", continuation: list[int]) -> Answer:
    """One continuation, of log-probabilities of shape (its longest fellow's tokens, vocabulary)."""
    import torch

    # Not of the log-probabilities' type: 16 bits do not hold a token's number.
    tokens = torch.tensor(continuation, device=logprobs.device)
    own = logprobs[: len(continuation)]
    greedy = bool((own.argmax(-1) == tokens).all())
    return float(own.gather(-1, tokens[:, None]).sum()), greedy
