"""Git repositories with the history that a test needs, written without a work tree.

`git fast-import` takes any file name and content at a speed that allows thousands of files.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Submodule(NamedTuple):
    """A commit of another repository."""

    sha: str


Content = str | bytes | Link | Submodule | None
"""What a path holds; None removes it."""

Path_ = str | bytes

ENVIRONMENT = {
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "protocol.file.allow",
    "GIT_CONFIG_VALUE_0": "always",
}


class History:
    """A repository at `root`, made here, on the branch `main`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made = 0
        root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """What git prints."""
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            input=stdin, env={**os.environ, **ENVIRONMENT}, capture_output=True, check=True,
        )  # fmt: skip
        return done.stdout.decode().strip()

    def commit(
        self,
        changes: Mapping[Path_, Content] | Mapping[str, Content],
        branch: str = "main",
        start: str | None = None,
        merge: Sequence[str] = (),
    ) -> str:
        """Commit changes to a branch.

        Args:
            start: Where the branch begins, if it is new.
            merge: Further parents.
        """
        self.made += 1
        who = f"committer A <a@example.com> {self.made} +0000\n"
        lines = [f"commit refs/heads/{branch}\n{who}data 0\n".encode()]
        known = self.known(f"refs/heads/{branch}")
        if start or known:
            lines.append(f"from {start or known}\n".encode())
        lines += [f"merge {parent}\n".encode() for parent in merge]
        lines += [_change(path, content) for path, content in changes.items()]
        self.git("fast-import", "--quiet", "--force", "--done", stdin=b"".join([*lines, b"done\n"]))
        return self.git("rev-parse", f"refs/heads/{branch}")

    def known(self, revision: str) -> str | None:
        """The commit that a revision means, if there is one."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", revision)
        except subprocess.CalledProcessError:
            return None

    def check_out(self, revision: str) -> None:
        """Write a commit's files."""
        self.git("checkout", "--quiet", "--force", "--detach", revision)

    def clone(self, root: Path, revision: str, depth: int | None = 1) -> "History":
        """What actions/checkout makes: one commit, of which nothing but the name is fetched."""
        clone = History(root)
        clone.git("remote", "add", "origin", f"file://{self.root}")
        shortened = [f"--depth={depth}"] if depth else []
        clone.git("fetch", "--quiet", *shortened, "--no-tags", "origin", revision)
        clone.check_out("FETCH_HEAD")
        return clone


def pointer(oid: str, size: int = 1000) -> str:
    """A Git LFS pointer."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def checkpoint(directory: str, weights: str = "weights") -> dict[str, Content]:
    """The files of a checkpoint, by name; their contents are none."""
    prefix = f"{directory}/" if directory else ""
    return {
        f"{prefix}config.json": "{}",
        f"{prefix}hf_quant_config.json": "{}",
        f"{prefix}model.safetensors": f"{weights} of {directory}",
        f"{prefix}tokenizer.json": "{}",
        f"{prefix}README.md": "# A model",
    }


def _change(path: Path_, content: Content) -> bytes:
    name = os.fsencode(path)
    quoted = b'"' + b"".join(_quoted(byte) for byte in name) + b'"'
    if content is None:
        return b"D " + quoted + b"\n"
    if isinstance(content, Submodule):
        return f"M 160000 {content.sha} ".encode() + quoted + b"\n"
    mode, data = "100644", content
    if isinstance(data, Link):
        mode, data = "120000", data.target
    raw = data.encode() if isinstance(data, str) else data
    return f"M {mode} inline ".encode() + quoted + f"\ndata {len(raw)}\n".encode() + raw + b"\n"


def _quoted(byte: int) -> bytes:
    return bytes([byte]) if 32 < byte < 127 and byte not in b'"\\' else f"\\{byte:03o}".encode()
