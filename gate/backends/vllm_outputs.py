"""What vLLM is asked for and what it gives back, held against each other before it is believed.

A log-probability of a prompt is an object of Python in vLLM's lists, a hundred bytes each: a text
of 300,000 tokens with 64 likely ones at each would take gigabytes. So they are asked for flat, of a
few windows at a time, and become arrays before the next are asked for.

Source: https://docs.vllm.ai/en/latest/api/vllm/sampling_params/ and
https://docs.vllm.ai/en/latest/api/vllm/logprobs/ (`FlatLogprobs`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gate.drift import Reading
from gate.errors import BackendError, NonFiniteLogitsError
from gate.harness import Asked, Told, Written, thinking

MOST_VALUES = 1 << 20
"""Log-probabilities that are asked for together; as objects they take about 100 MB."""

ENDS = ("stop", "length")
"""What may end an answer."""


def answering(asked: Asked, repetition_penalty: float) -> Any:
    """The parameters of an answer: the likeliest token each time."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0,
        repetition_penalty=repetition_penalty,
        max_tokens=asked.max_tokens,
        stop=list(asked.stop) or None,
        # A string that ends an answer may be a special token; the text is made here anyway.
        skip_special_tokens=False,
        # Of the chosen tokens, for their sum: it shows a model that computes NaN.
        logprobs=0,
    )


def reading(top: int, at: np.ndarray | None = None) -> Any:
    """The parameters of a text that is read; a token more is written, and not looked at.

    Args:
        top: Most likely tokens that are wanted.
        at: Tokens whose log-probabilities are: int32, shape (window - 1, k).
    """
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=top,
        prompt_logprob_token_ids=at,
        flat_logprobs=True,
        detokenize=False,
    )


def written(output: Any, tokenizer: Any) -> Written:
    """One answer.

    Args:
        output: vLLM's `RequestOutput`.
        tokenizer: Decodes, as it does for the other backends.

    Raises:
        BackendError: Something else than the model, a string or the limit ended it.
        NonFiniteLogitsError: The model computed NaN or infinity.
    """
    found = output.outputs[0]
    if found.finish_reason not in ENDS:
        raise BackendError(
            f"vLLM ended an answer by {found.finish_reason!r}: what the model wrote is not whole",
            "Look at its messages above, and run again: finished batches are kept.",
        )
    if found.cumulative_logprob is None or not math.isfinite(found.cumulative_logprob):
        raise _not_finite()
    ids, ended = list(found.token_ids), found.finish_reason == "stop"
    # The last one is the end token, or completes the string that ended it.
    return Written(thinking.decoded(tokenizer, ids), ended, len(ids) - ended)


def told(output: Any, token_ids: Sequence[int]) -> Told:
    """What the model says of every token of a prompt but the first; the likeliest was asked for."""
    found = Reading.empty(1, len(token_ids), top=1, k=0)
    fill(found, 0, output, np.asarray(token_ids))
    own, best = found.logprobs[0], found.top_logprobs[0, :, 0]
    return Told(own.tolist(), (own >= best).tolist())


def fill(reading: Reading, index: int, output: Any, window: np.ndarray) -> None:
    """Put what vLLM says of one window into its place.

    Args:
        reading: Of all windows.
        index: The window's.
        output: vLLM's `RequestOutput`.
        window: Its tokens, int64, shape (window,).

    Raises:
        BackendError: It is not what was asked for.
        NonFiniteLogitsError: The model computed NaN or infinity.
    """
    flat, positions = output.prompt_logprobs, len(window) - 1
    top = reading.top_ids.shape[2]
    # A position has the token of the text, then the likely ones, the likeliest first.
    size = positions * (top + 1)
    if flat is None or len(flat.token_ids) != size or len(flat.logprobs) != size:
        raise _other(f"{0 if flat is None else len(flat.token_ids)} values instead of {size}")
    ids = np.asarray(flat.token_ids, dtype=np.int64).reshape(positions, top + 1)
    values = np.asarray(flat.logprobs, dtype=np.float32).reshape(positions, top + 1)
    if not np.array_equal(ids[:, 0], window[1:]):
        raise _other("those of another text")
    if np.isnan(values).any() or not np.isfinite(values[:, 1:2]).all() or (values == np.inf).any():
        raise _not_finite()
    reading.logprobs[index] = values[:, 0]
    reading.top_ids[index] = ids[:, 1:]
    reading.top_logprobs[index] = values[:, 1:]
    wanted = reading.at_logprobs[index]
    if wanted.size:
        given = output.prompt_token_id_logprobs
        if given is None or np.shape(given) != wanted.shape:
            raise _other("none of the tokens that the baseline knows")
        if np.isnan(given).any():
            raise _not_finite()
        wanted[:] = given


def together(window: int, values: int) -> int:
    """How many windows are asked for at a time.

    Args:
        window: Tokens in one.
        values: Log-probabilities at each of them.
    """
    return max(1, MOST_VALUES // (window * values))


def repetition_penalty(generation_config: Mapping[str, Any] | None) -> float:
    """What a checkpoint's generation_config.json makes of tokens that were written already."""
    stated = (generation_config or {}).get("repetition_penalty")
    return float(stated) if isinstance(stated, int | float) else 1.0


def _other(what: str) -> BackendError:
    return BackendError(
        f"vLLM was asked for the log-probabilities of a text, and gave {what}",
        "Use the vLLM that docs/vllm.md names, or backend: hf.",
    )


def _not_finite() -> NonFiniteLogitsError:
    return NonFiniteLogitsError(
        "the model computed log-probabilities that are NaN or infinite in vLLM",
        "Look for scales that are zero, infinite or NaN: gate lint CHECKPOINT",
    )
