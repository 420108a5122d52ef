"""A hub that holds one repository: what clients ask of HF_ENDPOINT, and no more."""

import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

COMMIT = "a" * 40


@contextlib.contextmanager
def serve(
    repository: str,
    files: Mapping[str, bytes],
    kind: Literal["datasets", "models"] = "datasets",
    moved: Counter[str] | None = None,
    tokens: set[str] | None = None,
    elsewhere: str | None = None,
    ranges: bool = True,
) -> Iterator[str]:
    """Serve a repository on this machine.

    Args:
        repository: Its `org/name`.
        files: Path in the repository to content.
        kind: What it holds; the addresses differ.
        moved: Counts the bytes of each file that were sent.
        tokens: Collects the authorization of every request.
        elsewhere: Address of another such server, to which files are redirected.
        ranges: Whether parts of a file are served.

    Yields:
        The endpoint's address.
    """
    moved = Counter() if moved is None else moved

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer()

        def log_message(self, *args: object) -> None:
            """Quiet."""

        def _answer(self) -> None:
            if tokens is not None and "Authorization" in self.headers:
                tokens.add(self.headers["Authorization"])
            path = self.path.split("?")[0]
            prefix = "/datasets" if kind == "datasets" else ""
            api, resolve = f"/api/{kind}/{repository}", f"{prefix}/{repository}/resolve/"
            if path.startswith(resolve):
                self._file(path.removeprefix(resolve).partition("/")[2])
            elif path.startswith((f"{api}/tree/", f"{api}/paths-info/")):
                self._json([_entry(name, content) for name, content in files.items()])
            elif path == api or path.startswith(f"{api}/revision/"):
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": repository, "sha": COMMIT, "siblings": siblings, "tags": []})
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

        def _file(self, name: str) -> None:
            if name not in files:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            headers = {
                "ETag": f'"{_digest(files[name])}"',
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(files[name])),
                "Accept-Ranges": "bytes",
            }
            if elsewhere:
                self._send(302, b"", headers | {"Location": elsewhere + self.path})
                return
            asked = self.headers.get("Range", "") if ranges else ""
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            begin, end = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, len(files[name]))
            headers["Content-Length"] = str(end - begin)
            body = b""
            if self.command == "GET":
                body = files[name][begin:end]
                moved[name] += end - begin
            self._send(206 if wanted else 200, body, headers)

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _digest(content)[:40]}


def _digest(content: bytes) -> str:
    """Of the length and the beginning: a file may be sparse and huge."""
    return hashlib.sha256(b"%d" % len(content) + content[:65536]).hexdigest()
