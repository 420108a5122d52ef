"""`org/name@revision` on the Hugging Face hub: to local files, or read by byte ranges."""

import bisect
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from gate.checkpoint import Store
from gate.errors import BackendUnavailableError
from gate.settings import PIN

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
"""Never pickles, never code."""

GAP_BYTES = 48 * 2**10
"""Unasked bytes of a file that may be fetched in all, to join ranges that lie close together."""

KEPT_BYTES = 512 * 2**20
"""Fetched ranges that are kept until they are read; the oldest are dropped beyond."""

CONNECTIONS = 8
TIMEOUT_S = 30


class Source(NamedTuple):
    """Where a checkpoint lies, and what the user called it.

    Attributes:
        store: Where its files are read; None for the directory `path`.
    """

    path: Path
    name: str
    revision: str | None
    store: Store | None = None


def is_repository(name: str) -> bool:
    """Whether `name` is `org/name@revision` rather than a path that exists."""
    return PIN.fullmatch(name) is not None and not Path(name).exists()


def resolve(name: str) -> Source:
    """A local directory as it is; a hub repository downloaded into the hub's own cache.

    Raises:
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    if not is_repository(name):
        return Source(Path(name), name, None)
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    with _reaching(name):
        path = snapshot_download(repository, revision=revision, allow_patterns=WANTED)
    # The cache names a snapshot's directory after its commit.
    return Source(Path(path), repository, Path(path).name)


def remote(name: str) -> Source:
    """A local directory as it is; a hub repository to be read by byte ranges, not downloaded.

    Raises:
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    if not is_repository(name):
        return Source(Path(name), name, None)
    from huggingface_hub import HfApi

    repository, _, revision = name.partition("@")
    with _reaching(name):
        api = HfApi()
        commit = str(api.model_info(repository, revision=revision).sha)
        entries = api.list_repo_tree(repository, revision=commit)
        sizes = {entry.path: entry.size for entry in entries if hasattr(entry, "size")}
    store = Repository(repository, commit, sizes)
    return Source(Path(repository), repository, commit, store)


@contextmanager
def _reaching(name: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the hub is no verdict about the checkpoint."""
    from huggingface_hub.errors import HfHubHTTPError

    # OSError, and the error of the HTTP library: which library that is, depends on the version.
    errors = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    try:
        yield
    except errors as error:
        raise BackendUnavailableError(
            f"{name} cannot be fetched from the hub: {error}",
            "Check the name, the network and HF_TOKEN, or name a local directory.",
        ) from error


class Repository:
    """One commit of a hub repository: the contract `Store` over range requests.

    The token goes to the endpoint only, not to where that redirects.
    """

    def __init__(self, repository: str, commit: str, sizes: dict[str, int]) -> None:
        self._repository, self._commit, self._sizes = repository, commit, sizes
        self._locations: dict[str, tuple[str, dict[str, str]]] = {}
        self._plans: dict[str, list[tuple[int, int]]] = {}
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._begins: dict[str, list[int]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """See `Store.names`."""
        return tuple(sorted(self._sizes))

    def refusal(self, name: str) -> str | None:
        """See `Store.refusal`."""
        return None if name in self._sizes else "is no file of the repository"

    def size(self, name: str) -> int:
        """See `Store.size`."""
        if name not in self._sizes:
            raise FileNotFoundError(name)
        return self._sizes[name]

    def plan(self, name: str, ranges: Iterable[tuple[int, int]]) -> None:
        """See `Store.plan`; nothing is fetched before the first of them is read."""
        self._plans[name] = joined(ranges, GAP_BYTES)

    def read(self, name: str, begin: int = 0, end: int | None = None) -> memoryview:
        """See `Store.read`.

        Raises:
            BackendUnavailableError: The hub does not answer as it should.
        """
        size = self.size(name)
        last = size if end is None else min(end, size)
        if last <= begin:
            return memoryview(b"")
        found = self._find(name, begin, last)
        if found is None and name in self._plans:
            self._fetch_plan(name)
            found = self._find(name, begin, last)
        return memoryview(self._fetch(name, begin, last)) if found is None else found

    def _find(self, name: str, begin: int, end: int) -> memoryview | None:
        begins = self._begins[name]
        place = bisect.bisect_right(begins, begin) - 1
        if place < 0:
            return None
        first = begins[place]
        kept = self._kept[name, first]
        return memoryview(kept)[begin - first : end - first] if end <= first + len(kept) else None

    def _fetch_plan(self, name: str) -> None:
        """All planned ranges of a file at once: once, what is dropped comes one by one."""
        planned = self._plans.pop(name)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            fetched = pool.map(lambda part: self._fetch(name, *part), planned)
            for (begin, _), content in zip(planned, fetched, strict=True):
                self._kept[name, begin] = content
                bisect.insort(self._begins[name], begin)
        while sum(map(len, self._kept.values())) > KEPT_BYTES and len(self._kept) > len(planned):
            (other, begin), _ = self._kept.popitem(last=False)
            self._begins[other].remove(begin)

    def _fetch(self, name: str, begin: int, end: int) -> bytes:
        """One range request."""
        from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

        with _reaching(f"{self._repository}/{name}"):
            location, headers = self._location(name)
            wanted = {**headers, "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
            content = bytearray()
            with http_stream_backoff(
                "GET", location, headers=wanted, timeout=TIMEOUT_S
            ) as response:
                hf_raise_for_status(response)
                whole = begin == 0 and end == self._sizes[name]
                if response.status_code != 206 and not whole:
                    raise OSError("the server does not serve byte ranges")
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > end - begin:
                        raise OSError("the server sent more than it was asked for")
            if len(content) < end - begin:
                raise OSError("the answer ended early")
        return bytes(content)

    def _location(self, name: str) -> tuple[str, dict[str, str]]:
        """Where a file's bytes lie, and the headers that may go there."""
        from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        with self._lock:
            if name not in self._locations:
                url = hf_hub_url(self._repository, name, revision=self._commit)
                location = get_hf_file_metadata(url, token=get_token()).location
                same = urlsplit(location)[:2] == urlsplit(url)[:2]
                self._locations[name] = location, build_hf_headers() if same else {}
            return self._locations[name]


def joined(ranges: Iterable[tuple[int, int]], budget: int) -> list[tuple[int, int]]:
    """Sorted, overlapping and touching ranges merged, and the smallest gaps closed.

    Args:
        ranges: First byte and end of each.
        budget: Bytes of gaps that may be closed in all.
    """
    merged: list[list[int]] = []
    for begin, end in sorted(ranges):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        elif end > begin:
            merged.append([begin, end])
    gaps = sorted((merged[i + 1][0] - merged[i][1], i) for i in range(len(merged) - 1))
    closed = set()
    for gap, place in gaps:
        if gap > budget:
            break
        budget -= gap
        closed.add(place)
    parts: list[tuple[int, int]] = []
    for place, (begin, end) in enumerate(merged):
        if place - 1 in closed:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((begin, end))
    return parts
