"""Results that are kept: in a directory, in memory, and behind a real S3 protocol server."""

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gate.errors import BackendUnavailableError, StoreError
from gate.records import Label
from gate.store import Store

KEY = "a" * 64
LATER = timedelta(days=2)


def label(**changes: object) -> Label:
    """About the document that the test keeps."""
    stated = {
        "kind": "baseline",
        "key": KEY,
        "model": "acme/model",
        "date": "2026-11-21T10:00:00+00:00",
    }
    return Label.model_validate(stated | changes)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket behind a server that speaks S3's protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import boto3
        import s3fs

        # Kept from another module's server, it would ask at that one's port.
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket="kept")
        yield "s3://kept"
    server.stop()


@pytest.fixture(params=["directory", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    if request.param == "directory":
        return Store(str(tmp_path / "store"))
    if request.param == "memory":
        return Store(f"memory://{name}")
    return Store(f"{request.getfixturevalue('s3')}/{name}")


def test_what_is_kept_is_found_again(store: Store) -> None:
    assert store.entries("baseline") == ()
    array = b"\x00numbers"
    digest = hashlib.sha256(array).hexdigest()
    kept = store.put(label(facts={"device": "H100"}), b"document", {digest: array})
    assert store.entries("baseline", KEY) == (kept,)
    assert store.entries("baseline", "b" * 64) == ()
    assert store.entries("report") == ()
    assert store.document(kept) == b"document"
    assert store.object(kept.attachments[0]) == array


def test_the_newest_comes_first(store: Store) -> None:
    old = store.put(label(date="2026-01-01T00:00:00+00:00"), b"old")
    new = store.put(label(date="2026-02-01T00:00:00+01:00"), b"new")
    assert store.entries("baseline") == (new, old)


def test_the_same_result_twice_is_one(store: Store) -> None:
    store.put(label(), b"document")
    store.put(label(), b"document")
    assert len(store.entries("baseline")) == 1


def test_only_what_nothing_names_is_pruned(store: Store) -> None:
    kept, gone = store.put(label(), b"kept"), store.put(label(kind="report"), b"gone")
    store.remove(gone)
    assert store.prune() == 0, "a young document may not be named yet"
    assert store.prune(datetime.now(UTC) + LATER) == 1
    assert store.document(kept) == b"kept"
    with pytest.raises(StoreError, match="cannot be read"):
        store.document(gone)


def test_damage_is_seen_and_mended(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    kept = store.put(label(), b"document")
    (path,) = (tmp_path / "objects").glob("*/*")
    for content in (b"", path.read_bytes()[:-3], gzip.compress(b"other"), b"\x1f\x8b" + b"x" * 40):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="damaged"):
            store.document(kept)
    store.put(label(), b"document")
    assert store.document(kept) == b"document"


def test_a_stranger_among_the_entries_is_passed_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    kept = store.put(label(), b"document")
    (tmp_path / "entries" / "baseline" / KEY / "README.txt").write_text("by hand")
    assert store.entries("baseline") == (kept,)


def test_an_address_that_is_none_says_so() -> None:
    with pytest.raises(StoreError, match="no store"):
        Store("nowhere://x").entries("baseline")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(BackendUnavailableError) as raised:
        Store("gs://bucket").entries("baseline")
    assert "gs" in raised.value.hint


def test_a_secret_in_the_address_is_not_shown() -> None:
    assert Store("s3://id:secret@bucket/x?token=1").shown == "s3://bucket/x"


WRITERS = """
import hashlib, os, random, signal, sys, time, traceback
from pathlib import Path
from gate.records import Label
from gate.store import Store

def write(address, seed):
    store = Store(address)
    told = os.open("told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(10**6):
        document = (f"{seed}-{number} " * 4000).encode()
        key = hashlib.sha256(str(seed % 5).encode()).hexdigest()
        date = f"2026-11-21T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}+00:00"
        label = Label(kind="baseline", key=key, model="m", date=date)
        kept = store.put(label, document)
        os.write(told, f"{kept.content}\\n".encode())
        for found in store.entries("baseline", key)[:3]:
            store.document(found)

draw, writers = random.Random(11), []
for seed in range(50):
    writer = os.fork()
    if writer == 0:
        try:
            write(sys.argv[1], seed)
        except BaseException:
            Path(f"error-{seed}").write_text(traceback.format_exc())
        os._exit(1)
    writers.append(writer)
while not Path("told").exists():
    time.sleep(0.01)
for writer in draw.sample(writers, len(writers)):
    time.sleep(draw.random() / 10)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
"""


def test_fifty_writers_killed_at_random_lose_and_tear_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    subprocess.run([sys.executable, "-c", WRITERS, store.address], cwd=tmp_path, check=True)
    assert [path.read_text() for path in tmp_path.glob("error-*")] == []
    told = set((tmp_path / "told").read_text().splitlines())
    kept = store.entries("baseline")
    assert told
    assert told <= {found.content for found in kept}
    for found in kept:
        assert store.document(found)
