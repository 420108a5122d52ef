"""What servers reply: held against the shape of OpenAI's API before it is believed."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gate import records
from gate.errors import NonFiniteLogitsError, ServerError
from gate.harness import Told

ROUNDING = 1e-3
"""A log-probability may lie so far above zero: servers sum in float32 and round what they write."""


class _Part(BaseModel):
    """Part of a reply; servers add fields of their own."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Logprobs(_Part):
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class _Message(_Part):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_Part):
    text: str = ""
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    prompt_tokens: int | None = None


class _Reply(_Part):
    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1)]
    usage: _Usage | None = None


class _Meta(_Part):
    n_ctx: int | None = None


class _Model(_Part):
    id: str
    owned_by: str | None = None
    # Fields of vLLM and SGLang, and of llama.cpp.
    max_model_len: int | None = None
    meta: _Meta | None = None

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer that the server takes; None where it does not say."""
        return self.max_model_len or (self.meta.n_ctx if self.meta else None)


class _Models(_Part):
    data: list[_Model]


R = TypeVar("R", bound=_Part)

ENDS = ("stop", "length")
"""What may end an answer; anything else took some of it away."""


class Answered(NamedTuple):
    """One answer.

    Attributes:
        ended: Whether the model ended it, rather than the limit of tokens.
        prompt_tokens: How many the server counted in the prompt; None where it does not say.
    """

    text: str
    ended: bool
    prompt_tokens: int | None


def models(reply: Any, doing: str) -> list[tuple[str, str | None, int | None]]:
    """Every model that a server lists: its name, who owns it, and how many tokens it takes."""
    found = _parsed(_Models, reply, doing).data
    return [(model.id, model.owned_by, model.context) for model in found]


def answered(reply: Any, doing: str) -> Answered:
    """An answer, thinking that the server took out of it put back to where it was.

    Raises:
        ServerError: It is none, or was ended by something else than the model or the limit.
    """
    parsed = _parsed(_Reply, reply, doing)
    choice = parsed.choices[0]
    finish = choice.finish_reason
    if finish not in ENDS:
        raise ServerError(
            f"the server was asked to {doing}, and ended its answer by {_named(finish)}: "
            "what the model wrote is not whole",
            "Start the server without what cuts into answers, such as a parser of tool calls or "
            "a filter.",
        )
    text = choice.text if choice.message is None else _written(choice.message)
    return Answered(text, finish == "stop", parsed.usage.prompt_tokens if parsed.usage else None)


def told(reply: Any, tokens: Sequence[int], doing: str) -> Told:
    """What a server says of the tokens of a prompt, all of them but the first.

    Args:
        reply: To a request with `echo` and `logprobs`, for one token more than the prompt.
        tokens: The prompt's.
        doing: What was asked.

    Raises:
        ServerError: It says nothing of them, or of others.
        NonFiniteLogitsError: It says NaN or infinity.
    """
    found = _parsed(_Reply, reply, doing).choices[0].logprobs
    values = found.token_logprobs if found else []
    tops = found.top_logprobs if found else None
    # Some write a token more than the prompt's, as they were asked; some write none.
    if len(values) not in (len(tokens), len(tokens) + 1) or tops is None:
        raise _untold(doing, f"{len(values)} log-probabilities for {len(tokens)} tokens")
    if len(tops) != len(values):
        raise _untold(doing, f"{len(tops)} likeliest tokens for {len(values)} tokens")
    logprobs, greedy = [], []
    for value, top in list(zip(values, tops, strict=True))[1 : len(tokens)]:
        if value is None or not top:
            raise _untold(doing, "a token without its log-probability")
        if not all(map(math.isfinite, (value, *top.values()))):
            raise NonFiniteLogitsError(
                "the server gave log-probabilities that are NaN or infinite",
                "Look for broken scales or an overflow in what it serves.",
            )
        if value > ROUNDING:
            raise _untold(doing, f"a log-probability of {value:.4g}")
        logprobs.append(value)
        greedy.append(value >= max(top.values()))
    return Told(logprobs, greedy)


def _written(message: _Message) -> str:
    """What a model wrote, the thinking that the server took out of it included."""
    thought = message.reasoning_content or message.reasoning
    content = message.content or ""
    if not thought:
        return content
    # Without an answer behind it, the block was not closed.
    return f"<think>{thought}</think>{content}" if content else f"<think>{thought}"


def _untold(doing: str, what: str) -> ServerError:
    return ServerError(
        f"the server was asked to {doing}, and gave {what}",
        "Use a server that gives the log-probabilities of a prompt (echo with logprobs), such as "
        "vLLM, or backend: hf.",
    )


def _named(finish: str | None) -> str:
    return repr(finish[:40]) if finish is not None else "nothing"


def _parsed(kind: type[R], reply: Any, doing: str) -> R:
    try:
        return kind.model_validate(reply)
    except ValidationError as error:
        raise ServerError(
            f"the server was asked to {doing}; its reply is not OpenAI's "
            f"{records.violation(error)}",
            "Check server.url in quant-gate.yaml: it must be the address of the API.",
        ) from error
