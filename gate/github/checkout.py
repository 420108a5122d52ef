"""The workspace: what changed in it, and what it takes to judge that."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gate import detect, git, policy, settings
from gate.commits import WHOLE_HISTORY, Change
from gate.containers import CONTAINERS
from gate.errors import CheckpointError, GitError
from gate.event import CHANGES, Event
from gate.github import interpreter, judging, lfs, outputs
from gate.github.credentials import config, credentials
from gate.github.inputs import Inputs
from gate.github.judging import Order
from gate.records import Detection
from gate.settings import DEFAULT_FILE, PIN

if TYPE_CHECKING:
    from gate.github.api import Client


class Checkout:
    """A work tree, and the event for which it was checked out.

    Attributes:
        policy_commit: Whose settings, baselines and tasks decide; None for the work tree's.
    """

    def __init__(
        self,
        inputs: Inputs,
        event: Event | None,
        environ: Mapping[str, str],
        client: "Client | None",
    ) -> None:
        self._inputs, self._event, self._client = inputs, event, client
        self._repository = git.find(Path.cwd())
        self._credentials = credentials(
            self._repository,
            environ.get("GITHUB_SERVER_URL", "https://github.com"),
            inputs.github_token,
        )
        if environ.get("GITHUB_ACTIONS") == "true":
            for header in self._credentials.values():
                outputs.mask(header.rpartition(" ")[2])
        self._root = self._repository.root
        usual = inputs.settings == Path(DEFAULT_FILE)
        self._settings_file = None if usual else inputs.settings
        on_base = event is not None and event.name in CHANGES
        self.policy_commit = event.base_sha if event is not None and on_base else None

    def _change(self) -> Change:
        """The commits to compare."""
        inputs = self._inputs
        if self._event is not None:
            return self._event.change(base=inputs.base, head=inputs.head)
        head = inputs.head or "HEAD"
        return Change(head, inputs.base, "merge base") if inputs.base else Change(head)

    def detect(self) -> Detection:
        """Which checkpoints the change touches.

        Raises:
            GateError: The commits cannot be read.
        """
        return detect.detect(
            self._repository,
            self._change(),
            CONTAINERS,
            settings_file=self._settings_file,
            paths=self._inputs.paths,
            fetch=self._fetch,
            api=self._client,
        )

    def order(self, directory: Path) -> Order:
        """How checkpoints are judged here.

        Args:
            directory: Where their reports are stored.

        Raises:
            GateError: The base commit cannot be fetched, or the named Python cannot evaluate.
        """
        inputs = self._inputs
        if self.policy_commit is not None and self._repository.commit(self.policy_commit) is None:
            self._fetch([self.policy_commit], 1)
        evaluator = None
        if inputs.eval_python is not None and not inputs.lint_only:
            evaluator = interpreter.find(inputs.eval_python, judging.environment(os.environ))
            click.echo(f"Evaluating with {evaluator}")
        reports = directory / "reports"
        reports.mkdir()
        return Order(inputs, evaluator, self._root, self.policy_commit, reports)

    def fetch_files(self, checkpoint: str) -> None:
        """Bring a checkpoint's Git LFS files, if that is wanted.

        Raises:
            GateError: It is not here, or its files cannot be fetched.
        """
        path = Path(os.path.normpath(self._root / checkpoint))
        if not path.exists():
            if PIN.fullmatch(checkpoint):
                return
            raise CheckpointError(
                f"{checkpoint} is not in the workspace",
                "Check out the commit that is judged, before this step.",
            )
        if path.is_relative_to(self._root):
            self._tell_of_strays(checkpoint)
        if self._inputs.lfs == "off":
            return
        self._fetch_pointers(path)
        if self._keeps_large_files and not self._inputs.lint_only:
            reference = self._reference(path)
            if reference is not None and reference.is_dir():
                self._fetch_pointers(reference)

    def _tell_of_strays(self, checkpoint: str) -> None:
        """Warn of files that a checkpoint of the commit has in this workspace alone."""
        listed = [
            self._repository.run(
                "ls-files", "-z", *options, "--", checkpoint,
                environment={"GIT_LITERAL_PATHSPECS": "1"},
            ).split(b"\0")[:-1]
            for options in ((), ("--others",))
        ]  # fmt: skip
        tracked, strays = listed
        if tracked and strays:
            example = os.fsdecode(strays[0])
            outputs.say(
                "warning",
                f"{checkpoint} has files here that the commit does not hold ({len(strays)}), for "
                f"example {example}; they are judged too. Use actions/checkout with clean: true.",
            )

    def _fetch_pointers(self, path: Path) -> None:
        if path.is_relative_to(self._root) and lfs.pointers(path):
            self._require_known_store()
            storage = self._inputs.lfs_storage
            lfs.fetch(self._repository, path, storage=storage, settings=self._credentials)

    def _reference(self, checkpoint: Path) -> Path | None:
        """The directory by whose weights the baseline will be found."""
        if self._trusted is not None:
            rule, root = self._trusted.rule_for(checkpoint), self._trusted.tree
        else:
            loaded, root = settings.load(self._settings_file)
            rule = loaded.rule_for(checkpoint, root)
        if rule.reference is None or rule.baseline is not None:
            return None
        return Path(os.path.normpath(root / rule.reference))

    @cached_property
    def _trusted(self) -> "policy.Trusted | None":
        """The policy; what of it is in Git LFS stays in the clone, for those without the token."""
        if self.policy_commit is None:
            return None
        environment = config(self._credentials)
        with policy.opened(
            self.policy_commit, self._settings_file, environment=environment
        ) as trusted:
            return trusted

    @cached_property
    def _keeps_large_files(self) -> bool:
        """Whether anything in the repository is in Git LFS."""
        try:
            self._repository.run("grep", "-q", "filter=lfs", "HEAD", "--", "*.gitattributes")
        except GitError:
            return False
        return True

    def _require_known_store(self) -> None:
        """A pull request does not say from which server files are fetched.

        Raises:
            CheckpointError: It does.
        """
        if self.policy_commit is None:
            return
        try:
            self._repository.run("diff", "--quiet", self.policy_commit, "--", ".lfsconfig")
        except GitError as error:
            raise CheckpointError(
                "this change is about .lfsconfig, which says where Git LFS files come from",
                "Merge that file first, by itself.",
            ) from error

    def _fetch(self, revisions: Sequence[str], depth: int | None) -> None:
        """Fetch commits with the step's token.

        Raises:
            GitError: The remote does not give them.
        """
        try:
            self._repository.fetch(revisions, depth, environment=config(self._credentials))
        except GitError as error:
            raise GitError(error.message, WHOLE_HISTORY) from error
