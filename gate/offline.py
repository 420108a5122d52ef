"""Without a hub, use what is cached at once instead of waiting for it."""

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

CONNECT_TIMEOUT_S = 5.0


@contextlib.contextmanager
def cached_only_if_unreachable() -> Iterator[None]:
    """Set the hub's libraries to their cache where the hub does not answer.

    Left alone, `datasets` waits through five retries, 23 seconds, for every data set.
    """
    import datasets
    from huggingface_hub import constants

    offline = not _reachable(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    """Whether something listens there, or at the proxy that leads there."""
    target = urllib.parse.urlsplit(endpoint)
    if not urllib.request.proxy_bypass(target.hostname or ""):
        proxy = urllib.request.getproxies().get(target.scheme)
        target = urllib.parse.urlsplit(proxy) if proxy else target
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        socket.create_connection((target.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True
