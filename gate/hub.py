"""`org/name@revision` on the Hugging Face hub: to local files."""

import re
from pathlib import Path
from typing import NamedTuple

from gate.errors import BackendUnavailableError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+@[\w./-]+")
"""Always with a revision: a verdict is about bytes, and `org/name` alone is a path."""

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
"""Never pickles, never code."""


class Source(NamedTuple):
    """Where a checkpoint lies, and what the user called it."""

    path: Path
    name: str
    revision: str | None


def is_repository(name: str) -> bool:
    """Whether `name` is `org/name@revision` rather than a path that exists."""
    return REPOSITORY.fullmatch(name) is not None and not Path(name).exists()


def resolve(name: str) -> Source:
    """A local directory as it is; a hub repository downloaded into the hub's own cache.

    Raises:
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    if not is_repository(name):
        return Source(Path(name), name, None)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        path = snapshot_download(repository, revision=revision, allow_patterns=WANTED)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackendUnavailableError(
            f"{name} cannot be fetched from the hub: {error}",
            "Check the name, the network and HF_TOKEN, or name a local directory.",
        ) from error
    # The cache names a snapshot's directory after its commit.
    return Source(Path(path), repository, Path(path).name)
