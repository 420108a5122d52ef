"""Without a hub, use what is cached at once instead of waiting for it; and do without a network."""

import contextlib
import os
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gate.errors import SettingsError

CONNECT_TIMEOUT_S = 5.0

SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What the hub's libraries read when they are imported."""


@contextlib.contextmanager
def cached_only_if_unreachable() -> Iterator[None]:
    """Set the hub's libraries to their cache where the hub does not answer.

    Left alone, `datasets` waits through five retries, 23 seconds, for every data set.
    """
    import datasets
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def cached_files(dataset: Any, what: str) -> tuple[Path, ...]:
    """The files of a loaded data set, as its cache keeps them.

    Args:
        dataset: One split, or a mapping of them.
        what: Whose it is, for the message.

    Raises:
        SettingsError: It was not loaded into the cache, so that it cannot be carried elsewhere.
    """
    import datasets

    found = dataset.cache_files
    entries = [e for split in found.values() for e in split] if isinstance(found, dict) else found
    files = tuple(Path(entry["filename"]) for entry in entries)
    kept = Path(datasets.config.HF_DATASETS_CACHE)
    if not files or not all(file.is_relative_to(kept) for file in files):
        raise SettingsError(
            f"{what} reads data that is not in the cache of data sets",
            "Name a local copy with `documents: FILE.jsonl`, or `perplexity: {file: FILE}`.",
        )
    return files


def refuse_network() -> list[str]:
    """Let every connection of this process fail from now on; for a process that then ends.

    Unix sockets are left alone: they lead to no other machine.

    Returns:
        Grows by the address of every connection that was tried.
    """
    os.environ.update(dict.fromkeys(SWITCHES, "1"))
    tried: list[str] = []

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            address = arguments[0]
        elif event in {"socket.connect", "socket.sendto"}:
            if arguments[0].family == socket.AF_UNIX:
                return
            address = arguments[1]
        else:
            return
        tried.append(str(address))
        raise ConnectionRefusedError(f"{address} is not asked: this run does without a network")

    sys.addaudithook(refuse)
    return tried


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
