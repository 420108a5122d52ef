"""A server that ran the model: what it said of itself."""

from typing import Literal

from gate.records.storing import Record


class Served(Record):
    """Who answered, where the gate loaded no weights itself.

    Which bytes were served is known to the server alone.

    Attributes:
        model: The name under which the server lists the model.
        host: Its host and port.
        api: `completions` was sent prompts, `chat` conversations, which the server put into its
            own chat template.
        prompts: What a prompt was sent as.
        owner: Who owns the model according to the server, by which engines name themselves.
    """

    model: str
    host: str
    api: Literal["chat", "completions"]
    prompts: Literal["tokens", "text", "messages"]
    owner: str | None = None
