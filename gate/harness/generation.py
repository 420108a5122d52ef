"""One batch through the model: answers, how they ended, and what can go wrong."""

import bisect
import functools
import gc
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gate.errors import OutOfMemoryError
from gate.harness import decoding, prefix, thinking
from gate.harness.decoding import require_finite
from gate.harness.loading import first_line

if TYPE_CHECKING:
    import torch


class Generation(NamedTuple):
    """How long one answer was and whether the model ended it."""

    tokens: int
    ended: bool


class LanguageModel(Protocol):
    """lm-eval's model interface, which remembers how each answer ended, by prompt."""

    batch_size_per_gpu: int
    decodes: bool
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

    class RecordingLM(base):  # type: ignore[misc]
        def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
            super().__init__(
                pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size
            )
            self.generations: dict[str, list[Generation]] = {}
            self.decodes = decoding.is_supported(model)
            self._pending: list[Generation] = []
            # lm-eval tells its cache of every answer, in the order of the generated rows.
            self.set_cache_hook(SimpleNamespace(add_partial=self._remember))

        def _remember(self, kind: str, request: Any, response: Any) -> None:
            if kind == "generate_until":
                self.generations.setdefault(request[0], []).append(self._pending.pop(0))

        def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
            if skip_special_tokens:
                return thinking.decoded(self.tokenizer, tokens)
            return str(super().tok_decode(tokens, skip_special_tokens=False))

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:
            return require_finite(super()._model_call(inps, attn_mask, labels))

        def _loglikelihood_tokens(
            self, requests: list[prefix.Request], *args: Any, **options: Any
        ) -> list[Any]:
            known = prefix.answered(self, requests) if self.decodes else {}
            others = [place for place in range(len(requests)) if place not in known]
            left = [requests[place] for place in others]
            rest = super()._loglikelihood_tokens(left, *args, **options)
            known |= dict(zip(others, rest, strict=True))
            return [known[place] for place in range(len(requests))]

        def _model_generate(
            self, context: Any, max_length: int, stop: list[str], **kwargs: Any
        ) -> Any:
            theirs = super()._model_generate
            rows = _rows(self, theirs, context, max_length, stop, kwargs)
            width, ends = context.shape[1], _end_tokens(self.model)
            self._pending = [
                _generation(row[width:], max_length - width, ends, stop, self.tokenizer)
                for row in rows.tolist()
            ]
            return rows

    return RecordingLM


def _rows(
    lm: Any,
    otherwise: Callable[..., "torch.Tensor"],
    context: "torch.Tensor",
    max_length: int,
    stop: list[str],
    kwargs: dict[str, Any],
) -> "torch.Tensor":
    """Prompts with their answers, by our own loop where it does what is asked; else by lm-eval's.

    Args:
        lm: See `recording`.
        otherwise: lm-eval's way to generate.
        context: Token ids, shape (rows, width), padded on the left.
        max_length: Most tokens of prompt and answer.
        stop: Strings that end an answer.
        kwargs: What the request says of the generation, and `attention_mask`.
    """
    from transformers import LogitsProcessorList

    if not lm.decodes or not decoding.is_plain(_stated(lm.model, kwargs)):
        finite = LogitsProcessorList([_FiniteLogits()])
        return otherwise(context, max_length, stop, logits_processor=finite, **kwargs)
    ends, limit = _end_tokens(lm.model), max_length - context.shape[1]
    stopped = _stopping(stop, ends, lm.tokenizer)
    answers = decoding.decode(lm.model, context, kwargs["attention_mask"], limit, ends, stopped)
    return _beside(context, answers, lm.tokenizer.pad_token_id)


class _FiniteLogits:
    """A logits processor that changes nothing."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return require_finite(scores)


def _stated(model: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's own configuration and a request say of a generation, by name."""
    stated: dict[str, Any] = model.generation_config.to_diff_dict() | dict(kwargs)
    del stated["attention_mask"]
    # As lm-eval reads it: without a temperature nothing is drawn.
    if kwargs.get("do_sample") is None and not kwargs.get("temperature"):
        stated["do_sample"] = False
    return stated


def _stopping(stop: Sequence[str], ends: Collection[int], tokenizer: Any) -> decoding.Stopped:
    """Whether an answer's last tokens hold one of the strings that end it.

    Args:
        stop: The strings; one that is an end token need not be looked for.
        ends: Token ids that end an answer.
        tokenizer: Decodes.
    """
    single = [[token] for token in ends]
    sought = [s for s in stop if s and tokenizer.encode(s, add_special_tokens=False) not in single]
    # A token is a byte at least; one more, since a tokenizer may drop the first one's space.
    tail = 1 + max((len(string.encode()) for string in sought), default=0)

    def stopped(answer: Sequence[int]) -> bool:
        if not sought:
            return False
        text = tokenizer.decode(answer[-tail:])
        return any(string in text for string in sought)

    return stopped


def _beside(context: "torch.Tensor", answers: Sequence[list[int]], pad: int) -> "torch.Tensor":
    """Prompts and answers as `generate` returns them: one tensor, padded on the right."""
    import torch

    width = max(len(answer) for answer in answers)
    padded = [answer + [pad] * (width - len(answer)) for answer in answers]
    return torch.cat([context, context.new_tensor(padded)], dim=-1)


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
