"""Settings of a commit with everything that they name, in place of those of a change."""

import os
import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from gate import git, settings
from gate.errors import GateError, GitError, SettingsError
from gate.policy.files import Named, digest, machine_contents, named, working
from gate.policy.snapshot import Snapshot
from gate.records import Policy, ReferencePin
from gate.settings import CheckpointRule, Settings


@dataclass(frozen=True)
class Trusted:
    """Settings of a commit, and their files.

    Attributes:
        root: Private copy of the settings' directory, to which their paths are relative.
        tree: The same directory in the working tree: to which globs over checkpoints, and
            references that are directories, are relative.
        own: The settings of the change itself, of which only the references are used.
        since: The commit from which the change was made.
    """

    settings: Settings
    root: Path
    tree: Path
    record: Policy
    repository: git.Repository
    own: Settings | None
    since: str

    def rule_for(self, checkpoint: Path, pin: tuple[str, str] | None = None) -> CheckpointRule:
        """The entry that covers a checkpoint, with the reference that the change pins, if any.

        The baseline of such a reference is looked for in the commit's store.

        Args:
            checkpoint: Its directory in the working tree.
            pin: Repository and revision, where it comes from the hub.

        Raises:
            SettingsError: The pinned reference lies outside the repository.
        """
        rule = self.settings.rule_for(checkpoint, self.tree, pin)
        pinned = self.own.rule_for(checkpoint, self.tree, pin).reference if self.own else None
        if pinned is None or pinned == rule.reference:
            return rule
        if self._inside(pinned) is None:
            raise SettingsError(
                f"the change names the reference {pinned}, which lies outside the repository",
                "Name a directory of the repository, or org/name@revision.",
            )
        return CheckpointRule(path=rule.path, reference=pinned)

    def record_for(self, checkpoint: Path, pin: tuple[str, str] | None = None) -> Policy:
        """The record, with the reference of this checkpoint if the change pins another."""
        base = self.settings.rule_for(checkpoint, self.tree, pin).reference
        head = self.rule_for(checkpoint, pin).reference
        before, now = self._pinned(base, self.since), self._pinned(head, "HEAD")
        if before == now:
            return self.record
        path = "@".join(pin) if pin else os.path.relpath(checkpoint, self.tree)
        reference = ReferencePin(path=path, base=before, head=now)
        return self.record.model_copy(update={"references": (reference,)})

    def _pinned(self, reference: str | None, commit: str) -> str | None:
        """A reference by its content: a directory of the repository with its Git tree."""
        inside = self._inside(reference) if reference else None
        if inside is None or not (self.repository.root / inside).is_dir():
            return reference
        try:
            found = self.repository.run("rev-parse", "--verify", "--quiet", f"{commit}:{inside}")
        except GitError:
            return None  # not there at that commit
        return f"{reference}@{found.decode().strip()[:12]}"

    def _inside(self, reference: str) -> str | None:
        """The path in the repository that a reference would be; None outside of it."""
        path = Path(os.path.normpath(self.tree / reference))
        root = self.repository.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


@contextmanager
def opened(
    commit: str,
    file: Path | None,
    threshold: Decimal | None = None,
    *,
    files: bool = True,
    environment: Mapping[str, str] = git.NONE,
) -> Iterator[Trusted]:
    """The settings as a commit has them, with everything that they name.

    A commit without settings is that before they were adopted: then those of the working tree are
    used, and the record says that they decide nothing.

    Args:
        commit: Usually the base of a pull request.
        file: The settings file in the working tree; None for quant-gate.yaml here.
        threshold: Replaces `min_retention` of every gating metric.
        files: Whether what the settings name is needed, beside themselves.
        environment: For Git LFS, where files are kept in it: what it fetches once stays in the
            clone, for processes without the credentials.

    Raises:
        GitError: There is no such commit in this clone.
        SettingsError: The settings are wrong, or their files cannot be taken from a commit.
    """
    path = Path(os.path.normpath((file or Path(settings.DEFAULT_FILE)).absolute()))
    repository = git.find(path.parent)
    sha = repository.commit(commit)
    if sha is None:
        raise GitError(
            f"commit {commit[:80]} is not in this clone",
            "Fetch it (git fetch --depth=1 origin COMMIT), or check out with fetch-depth: 0.",
        )
    with tempfile.TemporaryDirectory(prefix="quant-gate-policy-") as name:
        private = Path(name).resolve()
        try:
            base = Snapshot(repository, sha, environment)
            yield _Source(base, path, file).trusted(private, threshold, files)
        except GateError as error:
            _restate(error, private, sha)
            raise


@dataclass(frozen=True)
class _Source:
    """Where settings are taken from.

    Attributes:
        base: The commit.
        path: The settings file in the working tree, absolute.
        given: As it was named; None where it was not.
    """

    base: Snapshot
    path: Path
    given: Path | None

    @property
    def repository(self) -> git.Repository:
        return self.base.repository

    @property
    def sha(self) -> str:
        return self.base.commit

    @cached_property
    def since(self) -> str:
        """The commit from which the change was made; what others did since is none of it."""
        return self.repository.merge_base(self.sha, "HEAD") or self.sha

    @property
    def directory(self) -> str:
        """The settings' directory in the repository; empty for its root."""
        inside = self.path.parent.relative_to(self.repository.root).as_posix()
        return "" if inside == "." else inside

    def trusted(self, private: Path, threshold: Decimal | None, files: bool) -> Trusted:
        name = posixpath.join(self.directory, self.path.name)
        adopted = name in self.base.entries
        if not adopted and self.path.is_file():
            return self._advisory(threshold)
        if adopted:
            self.base.write([name], private)
        # Where neither has a file there are the defaults, unless one was named.
        loaded, _ = settings.load(private / name if adopted else self.given, threshold)
        _refuse_remote_code(loaded)
        contents = {}
        if files:
            self.base.write(self._wanted(named(loaded)), private)
            contents = machine_contents(named(loaded))
        contents |= {self._relative(path): sha for path, sha in self.base.contents.items()}
        own = _readable(self.path)
        record = Policy(
            commit=self.sha, digest=digest(contents), changed=self._changed(loaded, own)
        )
        return Trusted(
            loaded,
            private / self.directory,
            self.path.parent,
            record,
            self.repository,
            own,
            self.since,
        )

    def _advisory(self, threshold: Decimal | None) -> Trusted:
        """The settings of the change, where the commit has none; they run no code of their own."""
        loaded, root = settings.load(self.path, threshold)
        _refuse_remote_code(loaded)
        if loaded.backend == "server":
            raise SettingsError(
                "server is not taken from a change that brings the first settings: it would name "
                "who is sent the prompts and the key",
                "Merge the settings first.",
            )
        if loaded.allow_unsafe_tasks:
            raise SettingsError(
                "allow_unsafe_tasks is not taken from a change that brings the first settings",
                "Merge the settings before the tasks that run code of their own.",
            )
        record = working(loaded, self.path, root).model_copy(
            update={"commit": self.sha, "changed": self._changed(loaded, None), "advisory": True}
        )
        return Trusted(loaded, root, root, record, self.repository, None, self.since)

    def _wanted(self, wanted: Named) -> list[str]:
        """The named files that the commit has, by their path from the repository's root."""
        for name in [*wanted.files, *wanted.directories]:
            path = posixpath.normpath(posixpath.join(self.directory, name))
            if Path(path).is_relative_to(self.repository.root):
                raise SettingsError(
                    f"the settings name {name}, a file of the checkout, by its absolute path",
                    "Name it relative to the settings file.",
                )
            if path.split("/")[0] == "..":
                raise SettingsError(
                    f"the settings name {name}, which leads out of the repository",
                    "Move it into the repository, or name it by its absolute path.",
                )
            if not posixpath.isabs(path):  # else a file of this machine
                self.base.refuse_linked(path)
        return [path for path in self.base.entries if wanted.holds(self._relative(path))]

    def _relative(self, path: str) -> str:
        """A path of the repository, from the settings' directory."""
        return posixpath.relpath(path, self.directory) if self.directory else path

    def _changed(self, loaded: Settings, own: Settings | None) -> tuple[str, ...]:
        """Files of a policy, the commit's or that of the change, that the change touches."""
        base = Snapshot(self.repository, self.since).entries
        head = Snapshot(self.repository, "HEAD").entries
        wanted = [named(loaded), *([named(own)] if own else [])]

        def concerns(path: str) -> bool:
            inside = self._relative(path)
            return inside == self.path.name or any(one.holds(inside) for one in wanted)

        touched = (path for path in base.keys() | head.keys() if base.get(path) != head.get(path))
        return tuple(sorted(filter(concerns, touched)))


def _readable(path: Path) -> Settings | None:
    """The settings of the change; None where they cannot be read, for they decide nothing."""
    try:
        return settings.read(path)
    except SettingsError:
        return None


def _refuse_remote_code(loaded: Settings) -> None:
    """The checkpoint is the change's, and so is its code, whoever wrote the settings."""
    if loaded.trust_remote_code:
        raise SettingsError(
            "trust_remote_code is not taken from the settings where a change is judged",
            "Pass --trust-remote-code in the workflow if the base branch wants it.",
        )


def _restate(error: GateError, private: Path, sha: str) -> None:
    """Name files as they are called in the commit, not by where they were written."""
    where = f"{private}{os.sep}"
    if where in f"{error.message}{error.hint}":
        error.message = f"{error.message.replace(where, '')} (in commit {sha[:12]})"
        error.hint = error.hint.replace(where, "")
