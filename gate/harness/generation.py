"""One batch through the model: answers, how they ended, and what can go wrong."""

import bisect
import functools
import gc
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from gate.errors import NonFiniteLogitsError, OutOfMemoryError
from gate.harness.loading import first_line


class Generation(NamedTuple):
    """How long one answer was and whether the model ended it."""

    tokens: int
    ended: bool


class LanguageModel(Protocol):
    """lm-eval's model interface, which remembers how each answer ended, by prompt."""

    batch_size_per_gpu: int
    max_length: int
    generations: dict[str, list[Generation]]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answers, in the order of the requests."""
        ...

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Log-probability in nats of each continuation, and whether it is the greedy one."""
        ...

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-probability in nats of each whole text."""
        ...


def answer(lm: LanguageModel, instances: Sequence[Any]) -> None:
    """Ask the model and keep its responses with their requests."""
    for kind in dict.fromkeys(instance.request_type for instance in instances):
        asked = [i for i in instances if i.request_type == kind for _ in range(i.repeats or 1)]
        for instance, response in zip(asked, getattr(lm, kind)(asked), strict=True):
            instance.resps.append(response)


def within_memory(run: Callable[[], None], documents: int) -> None:
    """Turn what torch raises on CPU and CUDA when memory is out into one error."""
    import torch

    try:
        run()
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        sizes = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and not any(text in str(error) for text in sizes):
            raise
        reason = first_line(error)
    # Outside the handler, the error's frames no longer hold the batch.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemoryError(
        f"{documents} documents do not fit into memory together: {reason}",
        "Set a smaller batch_size or max_gen_toks, or free memory.",
    )


@functools.cache
def recording(base: type[Any]) -> type[Any]:
    """lm-eval's HFLM, remembering how answers ended and refusing logits that are no numbers."""
    from transformers import LogitsProcessorList

    class RecordingLM(base):  # type: ignore[misc]
        def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
            super().__init__(
                pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size
            )
            self.generations: dict[str, list[Generation]] = {}
            self._pending: list[Generation] = []
            # lm-eval tells its cache of every answer, in the order of the generated rows.
            self.set_cache_hook(SimpleNamespace(add_partial=self._remember))

        def _remember(self, kind: str, request: Any, response: Any) -> None:
            if kind == "generate_until":
                self.generations.setdefault(request[0], []).append(self._pending.pop(0))

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:
            return _require_finite(super()._model_call(inps, attn_mask, labels))

        def _model_generate(
            self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any
        ) -> Any:
            rows = super()._model_generate(
                context,
                max_length,
                stop,
                logits_processor=LogitsProcessorList([_FiniteLogits()]),
                **generation_kwargs,
            )
            width, ends = context.shape[1], _end_tokens(self.model)
            self._pending = [
                _generation(row[width:], max_length - width, ends, stop, self.tokenizer)
                for row in rows.tolist()
            ]
            return rows

    return RecordingLM


class _FiniteLogits:
    """A logits processor that changes nothing."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return _require_finite(scores)


def _require_finite(logits: Any) -> Any:
    """The same logits, shape (..., vocabulary), where every row's largest is a number.

    Entries masked with -inf are no error; the maximum shows NaN, +inf and rows of -inf only.
    """
    if not logits.amax(dim=-1).isfinite().all():
        raise NonFiniteLogitsError(
            "the model computed logits that are NaN or infinite",
            "Look for broken scales or an overflow of the computation's dtype.",
        )
    return logits


def _end_tokens(model: Any) -> Collection[int]:
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())


def _generation(
    row: list[int], limit: int, ends: Collection[int], stop: list[str], tokenizer: Any
) -> Generation:
    """Length and end of one generated row, padded after its end.

    Args:
        row: Generated token ids.
        limit: Most tokens that could be generated.
        ends: Token ids that end an answer.
        stop: Strings that end it; a row runs on while others of its batch do.
    """
    length = next((i for i, token in enumerate(row) if token in ends), len(row))

    def stopped(count: int) -> bool:
        text = tokenizer.decode(row[:count])
        return any(string and string in text for string in stop)

    if stopped(length):
        return Generation(
            bisect.bisect_left(range(length), True, key=lambda n: stopped(n + 1)), True
        )
    return Generation(length, length < len(row) or len(row) < limit)
