"""The server that backend `server` asks."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from gate.settings.metrics import Part


class Server(Part):
    """An OpenAI-compatible server that serves the checkpoint.

    Attributes:
        url: Its address, with or without `/v1`, such as http://localhost:8000.
        model: Which of the models that it lists; left out, the only one.
        key_env: Environment variable that holds its key; left out, none is sent.
        api: `completions` sends the prompts that `hf` reads, `chat` the conversations, which the
            server puts into its own chat template.
        concurrency: Most requests at a time.
        timeout_s: Longest time that one request may take, in seconds.
        plain_http: Whether http:// may lead beyond loopback and private addresses.
    """

    url: str = Field(max_length=2000)
    model: str | None = Field(default=None, min_length=1, max_length=500)
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    api: Literal["chat", "completions"] = "completions"
    concurrency: int = Field(default=8, ge=1, le=1024)
    timeout_s: int = Field(default=600, ge=1, le=86_400)
    plain_http: bool = False

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        """Nothing but a server and a path: a key or a user's name in it would be shown."""
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and url.isprintable()
        if not named or "@" in url or "?" in url or "#" in url or " " in url:
            raise ValueError("url must be such as http://localhost:8000, without user and query")
        _ = parts.port  # raises where it is no number
        return url.rstrip("/").removesuffix("/v1")
