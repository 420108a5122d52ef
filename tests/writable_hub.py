"""A hub that takes uploads: what the real client asks for, with the faults of a real one.

Repositories have branches of commits; large files are kept by SHA-256 at an address of their own,
as on the hub, and seen by nobody before a commit names them.
"""

import base64
import contextlib
import fnmatch
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE_BYTES = 10_000
"""From here on files are large: less than the hub's, so that tests need not be slow."""

TOKEN = "hf_secret"


@dataclass
class Repo:
    """Commits, oldest first: each is the files of its tree; a large file is its SHA-256."""

    private: bool
    branches: dict[str, list[str]] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes | str]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes | str], title: str) -> str:
        oid = hashlib.sha1(f"{len(self.trees)}".encode()).hexdigest()
        self.trees[oid], self.titles[oid] = tree, title
        self.branches.setdefault(branch, []).append(oid)
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.trees else None


@dataclass
class Fault:
    """What goes wrong: an HTTP status, or a connection that ends after some bytes of the body."""

    method: str
    path: str
    status: int = 0
    cut_after: int | None = None
    times: int = 1


@dataclass
class Hub:
    """What was uploaded, and what was asked."""

    endpoint: str = ""
    storage: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[tuple[str, str]] = field(default_factory=set)
    moved: Counter[str] = field(default_factory=Counter)
    before_commit: Callable[[], None] = lambda: None
    on_upload: Callable[[], None] = lambda: None
    on_request: Callable[[], None] = lambda: None
    lose_answer: bool = False
    overtakes: int = 0
    xet: Path | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, files: dict[str, bytes] | None = None, private: bool = True) -> Repo:
        repo = self.repos[name] = Repo(private)
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        if files:
            repo.commit("main", {**repo.trees[repo.branches["main"][-1]], **files}, "by hand")
        return repo

    def content(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """What a download of a branch holds."""
        repo = self.repos[name]
        tree = repo.trees[repo.branches[branch][-1]]
        return {p: self.objects[c] if isinstance(c, str) else c for p, c in tree.items()}


@contextlib.contextmanager
def writable(part_bytes: int | None = None, xet: Path | None = None) -> Iterator[Hub]:
    """A hub on this machine, and its storage at an origin of its own.

    Args:
        part_bytes: Larger files are uploaded in parts.
        xet: A directory in which the client's own Xet keeps large files, as it would on a server;
            of these only the digests are known here.
    """
    hub = Hub(xet=xet)
    servers = [
        ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (kind,), {"hub": hub, "part": part_bytes})
        )
        for kind in (_Api, _Storage)
    ]
    hub.endpoint, hub.storage = (f"http://127.0.0.1:{s.server_port}" for s in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    part: int | None

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path = url.path
        with self.hub.lock:
            self.hub.on_request()
            self.hub.requests.append((self.command, path))
            if token := self.headers.get("Authorization"):
                self.hub.tokens.add((type(self).__mro__[1].__name__, token))
            fault = next(
                (f for f in self.hub.faults
                 if f.times and f.method == self.command and re.search(f.path, path)), None,
            )  # fmt: skip
            if fault is not None:
                fault.times -= 1
        length = int(self.headers.get("Content-Length", 0))
        if fault is not None and fault.cut_after is not None:
            self.rfile.read(min(length, fault.cut_after))
            self.close_connection = True
            self.connection.shutdown(2)
            return
        body = self.rfile.read(length) if length else self._chunks()
        if fault is not None:
            self.reply(fault.status, {"error": "injected"}, {"Retry-After": "0"})
            return
        self.answer(path, parse_qs(url.query), body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _chunks(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def answer(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        raise NotImplementedError

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.reply(404, {"error": code}, {"X-Error-Code": code})


class _Storage(_Handler):
    """Where large files lie: by signed addresses, without a token."""

    def answer(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        oid = path.rpartition("/")[2]
        if self.command == "GET":
            self.reply(200, self.hub.objects[oid])
            return
        self.hub.moved[oid] += len(body)
        self.hub.on_upload()
        if "part" in query:
            self.hub.parts.setdefault(oid, {})[int(query["part"][0])] = body
        else:
            self.hub.objects[oid] = body
        self.reply(200, b"", {"ETag": f'"{len(body)}"'})


class _Api(_Handler):
    def answer(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if found := re.fullmatch(r"/complete/(\w+)", path):
            parts = self.hub.parts.pop(found[1])
            self.hub.objects[found[1]] = b"".join(parts[number] for number in sorted(parts))
            self.reply(200, {})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif found := re.fullmatch(
            r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path
        ):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], unquote(found[2]), unquote(found[3]))
        elif found := re.fullmatch(
            r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/(\w[\w-]*)/?(.*))?", path
        ):
            with self.hub.lock:
                self._repository(found[1], found[2] or "revision", found[3] or "main", query, body)
        else:
            self.missing("EntryNotFound")

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            self.reply(409, {"error": "You already created this repo"})
            return
        self.hub.add(name, private=asked.get("visibility") == "private")
        self.reply(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _validate(self, content: str) -> None:
        """The hub's own rule is stricter; this one knows the shape of a model index."""
        try:
            data = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
            for model in data.get("model-index", []):
                for result in model["results"]:
                    assert {"type", "name"} <= result["dataset"].keys() and result["task"]["type"]
                    assert all({"type", "value"} <= metric.keys() for metric in result["metrics"])
        except (yaml.YAMLError, AssertionError, KeyError, TypeError, AttributeError) as error:
            self.reply(400, {"errors": [{"message": f"bad metadata: {error}"}], "warnings": []})
            return
        self.reply(200, {"errors": [], "warnings": []})

    def _batch(self, asked: dict[str, Any]) -> None:
        self.reply(200, {"transfer": "basic", "objects": list(map(self._upload, asked["objects"]))})

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.hub.objects:
            return wanted
        address = f"{self.hub.storage}/{oid}?X-Amz-Signature=signed"
        if self.part is None or size <= self.part:
            return {**wanted, "actions": {"upload": {"href": address}}}
        parts = {
            f"{number + 1:05}": f"{address}&part={number + 1}"
            for number in range(-(-size // self.part))
        }
        header = {"chunk_size": str(self.part), **parts}
        done = f"{self.hub.endpoint}/complete/{oid}"
        return {**wanted, "actions": {"upload": {"href": done, "header": header}}}

    def _file(self, name: str, revision: str, file: str) -> None:
        repo = self.hub.repos.get(name)
        commit = repo.resolve(revision) if repo else None
        if repo is None or commit is None or file not in repo.trees[commit]:
            self.missing("EntryNotFound" if repo else "RepoNotFound")
            return
        stored = repo.trees[commit][file]
        content = self.hub.objects[stored] if isinstance(stored, str) else stored
        headers = {"ETag": f'"{_oid(stored)}"', "X-Repo-Commit": commit}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        if self.command == "HEAD":
            headers["Content-Length"] = str(len(content))
        self.reply(206 if wanted else 200, content, headers)

    def _repository(
        self, name: str, verb: str, rest: str, query: dict[str, list[str]], body: bytes
    ) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.missing("RepoNotFound")
            return
        if verb == "branch":
            self.reply(409 if unquote(rest) in repo.branches else 200, {})
            repo.branches.setdefault(unquote(rest), list(repo.branches["main"]))
            return
        revision, _, below = map(unquote, rest.partition("/"))
        commit = repo.resolve(revision)
        if commit is None:
            self.missing("RevisionNotFound")
        elif verb == "xet-write-token":
            found = {"casUrl": f"local://{self.hub.xet}", "accessToken": "x", "exp": 2**32}
            self.reply(200, found)
        elif verb == "revision":
            files = [{"rfilename": path} for path in repo.trees[commit]]
            about = {
                "id": name,
                "private": repo.private,
                "sha": commit,
                "siblings": files,
                "tags": [],
            }
            self.reply(200, about)
        elif verb == "tree":
            found = self._entries(
                repo, commit, below, "true" in query.get("recursive", ["False"])[0].lower()
            )
            if found or not below:
                self.reply(200, found)
            else:
                self.missing("EntryNotFound")
        elif verb == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            every = self._entries(repo, commit, "", True)
            self.reply(200, [entry for entry in every if entry["path"] in asked])
        elif verb == "preupload":
            self._preupload(repo.trees[commit], json.loads(body))
        elif verb == "commit":
            self._commit(name, repo, revision, [json.loads(line) for line in body.splitlines()])
        else:
            self.missing("EntryNotFound")

    def _entries(
        self, repo: Repo, commit: str, below: str, recursive: bool
    ) -> list[dict[str, Any]]:
        first = next(oid for oid in repo.trees)
        last = {
            "id": first,
            "title": repo.titles[first],
            "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}",
        }
        found: dict[str, dict[str, Any]] = {}
        for path, stored in repo.trees[commit].items():
            if below and not path.startswith(f"{below}/"):
                continue
            folders = path.split("/")[:-1]
            for depth in range(len(folders)):
                folder = "/".join(folders[: depth + 1])
                if folder != below and not below.startswith(f"{folder}/"):
                    found[folder] = {
                        "type": "directory",
                        "path": folder,
                        "oid": _oid(folder.encode()),
                    }
            size = len(self.hub.objects[stored]) if isinstance(stored, str) else len(stored)
            found[path] = {"type": "file", "path": path, "size": size, "oid": _oid(stored)}
            if isinstance(stored, str):
                found[path]["lfs"] = {"oid": stored, "size": size, "pointerSize": 130}
        depth = below.count("/") + 1 if below else 0
        return [
            {**entry, "lastCommit": last}
            for entry in found.values()
            if recursive or entry["path"].count("/") == depth
        ]

    def _preupload(self, tree: dict[str, bytes | str], asked: dict[str, Any]) -> None:
        ignored = tree.get(".gitignore", b"")
        assert isinstance(ignored, bytes)
        patterns = asked.get("gitIgnore", ignored.decode()).split()
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LARGE_BYTES else "regular",
                "shouldIgnore": any(fnmatch.fnmatch(file["path"], p) for p in patterns),
                "oid": _known(tree.get(file["path"])),
            }
            for file in asked["files"]
        ]
        self.reply(200, {"files": files})

    def _commit(self, name: str, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> None:
        self.hub.before_commit()
        header = lines[0]["value"]
        head = repo.branches[branch][-1]
        if self.hub.overtakes > 0 or header.get("parentCommit", head) != head:
            self.hub.overtakes -= 1
            self.reply(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        tree = dict(repo.trees[head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if self.hub.xet is not None:
                    self.hub.objects.setdefault(value["oid"], bytes(value["size"]))
                if value["oid"] not in self.hub.objects:
                    self.reply(400, {"error": "LFS pointer pointed to a file that does not exist"})
                    return
                tree[value["path"]] = value["oid"]
            else:
                del tree[value["path"]]
        oid = repo.commit(branch, tree, header["summary"])
        if self.hub.lose_answer:
            self.hub.lose_answer = False
            self.reply(502, {"error": "the commit was made, and its answer lost"})
            return
        self.reply(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid})


def _oid(stored: bytes | str) -> str:
    """Git's name of a file, or of a large file's pointer."""
    content = stored.encode() if isinstance(stored, str) else stored
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _known(stored: bytes | str | None) -> str | None:
    return stored if isinstance(stored, str) else _oid(stored) if stored is not None else None
