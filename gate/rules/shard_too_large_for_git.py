"""Rule shard-too-large-for-git."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from gate.checkpoint import Directory
from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

MOST_BYTES = 2 * 10**9
"""Source: GitHub's documentation of Git LFS."""

LARGE_FILE_HOSTS = ("huggingface.co", "hf.co")
"""Hosts that take larger files; ModelScope's limit is not known."""

CONFIG_MAX_BYTES = 1 << 16


class ShardTooLargeForGit(Rule):
    """A weight file in a git work tree is larger than Git LFS hosts accept.

    Flags:
        A weight file above 2 GB in a directory that lies in a git work tree. Clones of the
        Hugging Face hub are not meant: it takes larger files.
    Why:
        GitHub refuses LFS objects above 2 GB on its free and Pro plans; the push fails after
        hours, or leaves the pointer without its file.
    Repair:
        Save with smaller shards: max_shard_size="1900MB".
    Source:
        https://docs.github.com/en/repositories/working-with-files/managing-large-files/about-git-large-file-storage
    """

    severity: ClassVar[Severity] = "warning"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a file."""
        checkpoint = evidence.checkpoint
        if not isinstance(checkpoint.store, Directory):
            return
        sizes = {name: checkpoint.store.size(name) for name in checkpoint.weight_files}
        large = {name: size for name, size in sizes.items() if size > MOST_BYTES}
        if large and _is_kept_in_git(checkpoint.path):
            for name, size in large.items():
                yield self.finding(
                    f"{name} has {size / 1e9:.1f} GB and lies in a git work tree; "
                    "GitHub's LFS takes at most 2 GB a file",
                    'Save with smaller shards, for example max_shard_size="1900MB".',
                    file=name,
                )


def _is_kept_in_git(path: Path) -> bool:
    """Whether a directory lies in a git work tree whose host limits files to 2 GB."""
    absolute = path.absolute()
    for directory in (absolute, *absolute.parents):
        git = directory / ".git"
        if git.exists():
            return not any(host in _remotes(git) for host in LARGE_FILE_HOSTS)
    return False


def _remotes(git: Path) -> str:
    """What git's settings of this work tree say; "" where they lie elsewhere."""
    try:
        with (git / "config").open(encoding="utf-8", errors="replace") as file:
            return file.read(CONFIG_MAX_BYTES)
    except OSError:
        return ""
