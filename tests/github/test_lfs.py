"""Git LFS files of judged checkpoints: git-lfs itself, against a store on this machine."""

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from github_repository import SETTINGS, pull_request
from github_repository import Repository as Fixture

from gate import event
from gate.errors import CheckpointError, GitError
from gate.event import Event
from gate.git import Repository
from gate.github import inputs, lfs
from gate.github.checkout import Checkout
from gate.github.credentials import config, credentials

TOKEN = "ghs_stub"

pytestmark = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


class Store:
    """What an LFS server holds, and who asked it with which credentials."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str | None] = []
        self.sent: list[str] = []

    def add(self, content: bytes) -> bytes:
        """The pointer to a new object."""
        oid = hashlib.sha256(content).hexdigest()
        self.objects[oid] = content
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{oid}")
        return "\n".join([*lines, f"size {len(content)}", ""]).encode()

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer the batch API and downloads.

        Source: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
        """
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                store.asked.append(self.headers.get("Authorization"))
                wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                host = f"http://{self.headers['Host']}"
                objects = [self._object(host, each) for each in wanted["objects"]]
                self._send(json.dumps({"transfer": "basic", "objects": objects}).encode())

            def do_GET(self) -> None:
                store.sent.append(self.path.strip("/"))
                self._send(store.objects[self.path.strip("/")])

            def _object(self, host: str, each: dict[str, object]) -> dict[str, object]:
                if each["oid"] not in store.objects:
                    return {**each, "error": {"code": 404, "message": "gone"}}
                return {**each, "actions": {"download": {"href": f"{host}/{each['oid']}"}}}

            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.git-lfs+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def fixture(tmp_path: Path, store: Store) -> Fixture:
    """Two checkpoints as pointers, one with a name that patterns have trouble with."""
    made = Fixture(tmp_path / "repository", [])
    (made.root / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    for path in ("models/a", "models/a/nested", "models/b, [c] {d}"):
        (made.root / path).mkdir(parents=True)
        (made.root / path / "model.safetensors").write_bytes(store.add(path.encode()))
        (made.root / path / "config.json").write_text("{}")
    made.commit("Models in Git LFS")
    return made


def content(fixture: Fixture, path: str) -> bytes:
    return (fixture.root / path / "model.safetensors").read_bytes()


def test_only_the_files_of_the_checkpoint_are_fetched_with_the_token(
    fixture: Fixture, store: Store
) -> None:
    repository = Repository(fixture.root)
    config = (fixture.root / ".git" / "config").read_text()
    with store.serve() as url:
        fixture.git("remote", "set-url", "origin", f"{url}/acme/models.git")
        given = credentials(repository, url, TOKEN)
        assert lfs.fetch(repository, fixture.root / "models/a", settings=given) == 1
    assert content(fixture, "models/a") == b"models/a"
    assert content(fixture, "models/a/nested").startswith(b"version https://git-lfs")
    assert len(store.sent) == 1
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert set(store.asked) == {f"basic {basic}"}
    fixture.git("remote", "set-url", "origin", "https://github.com/acme/models.git")
    kept = (fixture.root / ".git" / "config").read_text()
    # git-lfs notes for itself what a server speaks; nothing there is secret.
    assert basic not in kept
    assert TOKEN not in kept
    assert kept.startswith(config)


def test_names_that_mean_something_in_patterns_are_taken_literally(
    fixture: Fixture, store: Store
) -> None:
    path = "models/b, [c] {d}"
    repository = Repository(fixture.root)
    with store.serve() as url:
        fixture.git("remote", "set-url", "origin", f"{url}/acme/models.git")
        lfs.fetch(repository, fixture.root / path, settings={})
    assert content(fixture, path) == path.encode()
    assert len(store.sent) == 1


def test_a_shared_storage_is_asked_first(fixture: Fixture, store: Store, tmp_path: Path) -> None:
    repository = Repository(fixture.root)
    storage = str(tmp_path / "storage")
    pointer = content(fixture, "models/a")
    with store.serve() as url:
        fixture.git("remote", "set-url", "origin", f"{url}/acme/models.git")
        for _ in range(2):
            (fixture.root / "models/a" / "model.safetensors").write_bytes(pointer)
            lfs.fetch(repository, fixture.root / "models/a", storage=storage, settings={})
    assert content(fixture, "models/a") == b"models/a"
    assert len(store.sent) == 1


def test_a_file_that_the_store_has_lost_is_an_error(fixture: Fixture, store: Store) -> None:
    store.objects.clear()
    with store.serve() as url:
        fixture.git("remote", "set-url", "origin", f"{url}/acme/models.git")
        with pytest.raises((CheckpointError, GitError), match=r"lfs|pointer"):
            lfs.fetch(Repository(fixture.root), fixture.root / "models/a", settings={})


def test_without_git_lfs_the_package_is_named(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CheckpointError, match=r"1 file of .* git-lfs is not installed") as caught:
        lfs.fetch(Repository(fixture.root), fixture.root / "models/a", settings={})
    assert "apt-get install git-lfs" in caught.value.hint


def test_links_and_other_files_are_no_pointers(fixture: Fixture) -> None:
    directory = fixture.root / "models/a"
    (directory / "link.safetensors").symlink_to(directory / "model.safetensors")
    assert [path.name for path in lfs.pointers(directory)] == ["model.safetensors"]
    assert lfs.pointers(fixture.root / "models/gone") == []


def test_the_shards_of_a_gguf_model_belong_together(fixture: Fixture) -> None:
    directory = fixture.root / "gguf"
    directory.mkdir()
    pointer = content(fixture, "models/a")
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "other.gguf"]
    for name in names:
        (directory / name).write_bytes(pointer)
    assert [path.name for path in lfs.pointers(directory / names[0])] == names[:2]
    assert [path.name for path in lfs.pointers(directory / names[2])] == names[2:]


def test_credentials_of_the_checkout_are_left_alone(fixture: Fixture) -> None:
    repository = Repository(fixture.root)
    server = "https://github.com"
    assert credentials(repository, server, TOKEN)
    fixture.git("config", f"http.{server}/.extraheader", "AUTHORIZATION: basic kept")
    assert not credentials(repository, server, TOKEN)
    assert not credentials(repository, server, None)


def test_the_token_goes_to_its_server_alone(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.abbrev")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "12")
    repository = Repository(fixture.root)
    given = credentials(repository, "https://git.example.com/", TOKEN)

    def header(url: str) -> bytes:
        return repository.run(
            "config", "--get-urlmatch", "http.extraheader", url, environment=config(given)
        )

    assert b"basic" in header("https://git.example.com/acme/models.git")
    with pytest.raises(GitError):
        header("https://evil.example.com/")
    assert repository.run("config", "core.abbrev", environment=config(given)) == b"12\n"


def test_what_else_a_verdict_needs_is_fetched_too(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Fixture(tmp_path / "repository", ["models/a"])
    (made.root / ".gitattributes").write_text("*.bin filter=lfs\nbaselines/* filter=lfs\n")
    settings = f"{SETTINGS}checkpoints: [{{path: models/a, reference: original}}]\n"
    (made.root / "quant-gate.yaml").write_text(settings)
    (made.root / "original").mkdir()
    weights = made.root / "original" / "weights.bin"
    weights.write_bytes(store.add(b"weights"))
    kept = made.root / "baselines" / "base.json"
    baseline = kept.read_bytes()
    kept.write_bytes(store.add(baseline))
    # As in a checkout without git-lfs: pointers are committed, and left as they are.
    made.base = made.commit("In Git LFS")
    started = read_event(made, pull_request(made.change(sound=["models/a"])))
    monkeypatch.chdir(made.root)
    with store.serve() as url:
        made.git("remote", "set-url", "origin", f"{url}/acme/models.git")
        environ = {"GITHUB_SERVER_URL": url}
        asked = inputs.read({f"{inputs.PREFIX}GITHUB_TOKEN": TOKEN})
        checkout = Checkout(asked, started, environ, None)
        checkout.order(tmp_path)
        checkout.fetch_files("models/a")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "model.safetensors").write_bytes(store.add(b"elsewhere"))
        checkout.fetch_files("../elsewhere")
    assert weights.read_bytes() == b"weights"
    oid = hashlib.sha256(baseline).hexdigest()
    assert (made.root / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid).read_bytes() == baseline
    assert (elsewhere / "model.safetensors").stat().st_size > len(b"elsewhere")
    assert store.asked
    assert None not in store.asked


def read_event(made: Fixture, payload: dict[str, Any]) -> Event | None:
    path = str(made.write_event(payload))
    return event.read({"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": path})
