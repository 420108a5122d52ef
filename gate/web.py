"""Requests to web servers: whose address it is, how much of a reply is read, why there is none."""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests

Origin = tuple[str, str, int | None]
"""Scheme, host and port."""


class TooLargeError(ValueError):
    """A reply is larger than what is read of it."""


def origin(url: str) -> Origin | None:
    """Scheme, host and port; None for what is no address of a web server, or names a user."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port


def body(response: "requests.Response", limit_bytes: int, deadline: float) -> bytes:
    """The content of a streamed reply, within its bounds.

    Args:
        response: Of which nothing was read.
        limit_bytes: Most bytes, decompressed.
        deadline: Of the monotonic clock.

    Raises:
        TooLargeError: It holds more.
        TimeoutError: It was not whole in time.
    """
    content = bytearray()
    # What has come, not a full block: a server that sends byte by byte is left in time.
    while chunk := response.raw.read1(65_536, decode_content=True):
        content += chunk
        if len(content) > limit_bytes:
            raise TooLargeError(f"larger than {limit_bytes:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(content)


def reason(error: Exception) -> str:
    """Why there is no reply; never the library's words, which quote addresses with signatures."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection was made (name your own authority in REQUESTS_CA_BUNDLE)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy did not reach it"
    if isinstance(error, requests.Timeout):
        return "there was no reply in time"
    if isinstance(error, requests.ConnectionError):
        return "the connection failed or was dropped"
    return f"the reply cannot be read ({type(error).__name__})"
