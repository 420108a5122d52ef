"""What a server serves and what it can be asked for, found out before the first document."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from gate.backends import server_replies
from gate.backends.server_client import Client
from gate.errors import NonFiniteLogitsError, ServerError
from gate.harness import Told
from gate.plain import plain
from gate.settings import Server

SEED = 1234
"""lm-eval's. Nothing is drawn; a server that draws all the same does it alike each time."""

REFUSALS = frozenset({400, 404, 405, 415, 422, 500, 501})
"""How servers say that they do not know a field or a kind of prompt."""

NAMED = 5
"""Models that a message names."""

PROBE = [1, 2, 3, 4, 5, 6, 7, 8]
"""Tokens that every vocabulary has."""


class Model(NamedTuple):
    """One that a server lists.

    Attributes:
        context: Tokens of prompt and answer that the server takes; None where it does not say.
    """

    name: str
    owner: str | None
    context: int | None


def identity(client: Client, server: Server) -> Model:
    """The model that is meant, as the server lists it.

    Raises:
        ServerError: It lists no such model, or several where none is named.
    """
    doing = "list its models"
    listed = [Model(*each) for each in server_replies.models(client.get("models", doing), doing)]
    named = [each for each in listed if server.model in (None, each.name)]
    if len(named) == 1:
        return named[0]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    names = (plain(each.name, limit=100) for each in listed[:NAMED])
    known = f"{', '.join(names)}{more}" if listed else "no model"
    if server.model is None:
        raise ServerError(
            f"the server at {client.host} serves {known}: it is not clear which one is meant",
            "Name the one that is meant: server: {model: NAME} in quant-gate.yaml.",
        )
    raise ServerError(
        f"the server at {client.host} serves {known}, not {plain(server.model)}",
        "Serve the checkpoint under that name, or name another in server.model.",
    )


def prompts(
    client: Client, model: str, text: str, token_ids: Sequence[int]
) -> Literal["tokens", "text"]:
    """What a prompt can be sent as: its tokens, where the server takes them.

    Args:
        text: A prompt as it will be sent.
        token_ids: The same in tokens.

    Raises:
        ServerError: The server's tokenizer makes other tokens of it.
    """
    doing = "answer a first prompt"
    try:
        reply = client.post("completions", completion(model, list(token_ids), 1), doing)
        kind: Literal["tokens", "text"] = "tokens"
    except ServerError as error:
        if error.status not in REFUSALS:
            raise
        reply, kind = client.post("completions", completion(model, text, 1), doing), "text"
    require_count(server_replies.answered(reply, doing), len(token_ids))
    return kind


def require_count(answered: server_replies.Answered, expected: int) -> None:
    """Make sure that the server read as many tokens as the checkpoint's tokenizer makes.

    Raises:
        ServerError: It read others, so that its answers are answers to something else.
    """
    if answered.prompt_tokens not in (None, expected):
        raise ServerError(
            f"the server counts {answered.prompt_tokens:,} tokens in a prompt that has "
            f"{expected:,} by the checkpoint's tokenizer: it has another tokenizer, or puts "
            "special tokens of its own before every prompt",
            "Serve the checkpoint with its own tokenizer, or ask by api: chat.",
        )


def untold(client: Client, model: str) -> str | None:
    """Why a server gives no log-probabilities of a prompt; None if it gives them."""
    doing = "give the log-probabilities of a prompt"
    try:
        reply = client.post("completions", _echo(model, PROBE), doing)
    except ServerError as error:
        # One that is crowded or gone would leave out what it could give.
        if error.status not in REFUSALS:
            raise
        return error.message
    try:
        server_replies.told(reply, PROBE, doing)
    except ServerError as error:
        return error.message
    except NonFiniteLogitsError:  # the first text will show it, and condemn the model
        return None
    return None


def told(client: Client, model: str, token_ids: Sequence[int], doing: str) -> Told:
    """What the model says of every token of a prompt but the first; see `server_replies.told`."""
    reply = client.post("completions", _echo(model, token_ids), doing)
    return server_replies.told(reply, token_ids, doing)


def completion(
    model: str, prompt: str | list[int], max_tokens: int, stop: Sequence[str] = ()
) -> dict[str, Any]:
    """The payload for /v1/completions: the likeliest token each time."""
    return {"prompt": prompt} | _greedy(model, max_tokens, stop)


def chat(
    model: str,
    messages: list[dict[str, Any]],
    max_tokens: int,
    stop: Sequence[str],
    template_kwargs: dict[str, Any],
) -> dict[str, Any]:
    """The payload for /v1/chat/completions, `template_kwargs` as engines take them."""
    extra = {"chat_template_kwargs": template_kwargs} if template_kwargs else {}
    return {"messages": messages} | _greedy(model, max_tokens, stop) | extra


def _echo(model: str, token_ids: Sequence[int]) -> dict[str, Any]:
    return completion(model, list(token_ids), 1) | {"echo": True, "logprobs": 1}


def _greedy(model: str, max_tokens: int, stop: Sequence[str]) -> dict[str, Any]:
    # OpenAI's API takes four; the answer is cut at every one of them anyway.
    stops = {"stop": list(stop)[:4]} if stop else {}
    return {"model": model, "max_tokens": max_tokens, "temperature": 0, "seed": SEED} | stops
