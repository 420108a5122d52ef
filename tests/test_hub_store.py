"""Kept results in a repository of the hub: the real file system against a hub of its own."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from huggingface_hub import HfFileSystem, constants
from writable_hub import TOKEN, Fault, Hub, writable

from gate.errors import StoreError
from gate.records import Label
from gate.store import Store

NAME = "acme/gate"
ADDRESS = f"hf://datasets/{NAME}/kept"
LATER = timedelta(days=2)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with writable() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.endpoint)
        template = "{endpoint}/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace("{endpoint}", made.endpoint)
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        HfFileSystem.clear_instance_cache()
        made.add(NAME)
        yield made
    HfFileSystem.clear_instance_cache()


def label(**changes: object) -> Label:
    stated = {"kind": "baseline", "key": "a" * 64, "model": "acme/model",
              "date": "2026-11-21T10:00:00+00:00"}  # fmt: skip
    return Label.model_validate(stated | changes)


def folder(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:2]


def test_what_is_kept_is_found_again(hub: Hub) -> None:
    store = Store(ADDRESS)
    assert store.entries("baseline") == ()
    array = bytes(range(256)) * 200
    digest = hashlib.sha256(array).hexdigest()
    kept = store.put(label(), b"document", {digest: array})
    other = store.put(label(date="2026-11-22T10:00:00+00:00"), b"newer")
    assert Store(ADDRESS).entries("baseline") == (other, kept)
    assert store.entries("report") == ()
    assert store.document(kept) == b"document"
    assert store.object(digest) == array
    assert all(path.startswith(("kept/", ".git")) for path in hub.content(NAME))


def test_the_same_result_twice_is_one_commit(hub: Hub) -> None:
    Store(ADDRESS).put(label(), b"document")
    commits = len(hub.repos[NAME].trees)
    Store(ADDRESS).put(label(), b"document")
    assert len(hub.repos[NAME].trees) == commits


def test_what_another_writer_kept_meanwhile_is_seen(hub: Hub) -> None:
    mine, theirs = Store(ADDRESS), Store(ADDRESS)
    first = mine.put(label(), b"first")
    assert mine.document(first) == b"first", "and its folder is listed"
    near = next(b"%d" % n for n in range(9999) if folder(b"%d" % n) == folder(b"first"))
    with ThreadPoolExecutor(1) as elsewhere:
        # A thread has a file system of its own, as another process would.
        second = elsewhere.submit(theirs.put, label(), near).result()
    assert mine.document(second) == near
    assert len(mine.entries("baseline")) == 2


def test_two_writers_at_once_lose_nothing(hub: Hub) -> None:
    """The hub refuses a commit that another one overtook; who was refused tries again."""
    hub.overtakes = 5

    def write(writer: int) -> list[bytes]:
        documents = [f"{writer} {number}".encode() for number in range(2)]
        for document in documents:
            Store(ADDRESS).put(label(), document)
        return documents

    with ThreadPoolExecutor(3) as writers:
        told = {document for found in writers.map(write, range(3)) for document in found}
    store = Store(ADDRESS)
    assert {store.document(entry) for entry in store.entries("baseline")} == told


def test_a_hub_that_refuses_for_good_is_told(hub: Hub) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=412, times=99))
    with pytest.raises(StoreError, match="cannot be written"):
        Store(ADDRESS).put(label(), b"document")


def test_only_what_nothing_names_is_pruned(hub: Hub) -> None:
    store = Store(ADDRESS)
    kept, gone = store.put(label(), b"kept"), store.put(label(kind="report"), b"gone")
    store.remove(gone)
    assert store.entries("report") == ()
    assert store.prune() == 0, "a young document may not be named yet"
    assert store.prune(datetime.now(UTC) + LATER) == 1
    assert store.document(kept) == b"kept"
    with pytest.raises(StoreError, match="cannot be read"):
        store.document(gone)
