"""The inputs of action.yml, as they reach `gate action`: strings in the environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, cast, get_args

from gate.errors import SettingsError
from gate.github import waiver

PREFIX = "QUANT_GATE_INPUT_"

Command = Literal["auto", "detect", "check", "publish"]
FailOn = Literal["regression", "invalid", "never"]
OnInfraError = Literal["fail", "warn"]
Lfs = Literal["auto", "off"]
CommentMode = Literal["always", "changes", "failures", "never"]


@dataclass(frozen=True)
class Inputs:
    """What the workflow asks for; action.yml describes each.

    Attributes:
        comment_key: Tells this gate from others on the same pull request; never empty.
        base, head: Commits that replace the event's.
    """

    command: Command
    checkpoint: str | None
    paths: tuple[str, ...]
    settings: Path | None
    lint_only: bool
    full: bool
    attest: bool
    eval_python: str | None
    lfs: Lfs
    lfs_storage: str | None
    fail_on: FailOn
    on_infra_error: OnInfraError
    comment: CommentMode
    comment_key: str
    commit_status: bool
    publish_text: bool
    waiver_label: str | None
    waiver_max_age: timedelta
    run_json: tuple[Path, ...]
    base: str | None
    head: str | None
    github_token: str | None


def read(environ: Mapping[str, str]) -> Inputs:
    """The inputs, checked.

    Raises:
        SettingsError: One of them has a value that it cannot have.
    """
    given = _Given(environ)
    settings = given.text("settings")
    inputs = Inputs(
        command=cast("Command", given.choice("command", get_args(Command))),
        checkpoint=given.text("checkpoint"),
        paths=given.lines("paths"),
        settings=Path(settings) if settings else None,
        lint_only=given.truth("lint-only", default=False),
        full=given.truth("full", default=False),
        attest=given.truth("attest", default=False),
        eval_python=given.text("eval-python"),
        lfs=cast("Lfs", given.choice("lfs", get_args(Lfs))),
        lfs_storage=given.text("lfs-storage"),
        fail_on=cast("FailOn", given.choice("fail-on", get_args(FailOn))),
        on_infra_error=cast("OnInfraError", given.choice("on-infra-error", get_args(OnInfraError))),
        comment=cast("CommentMode", given.choice("comment", get_args(CommentMode))),
        comment_key=given.text("comment-key") or "default",
        commit_status=given.truth("commit-status", default=True),
        publish_text=given.truth("publish-text", default=False),
        waiver_label=given.text("waiver-label"),
        waiver_max_age=waiver.age(given.text("waiver-max-age") or "3d"),
        run_json=tuple(Path(line) for line in given.lines("run-json")),
        base=given.text("base"),
        head=given.text("head"),
        github_token=given.text("github-token"),
    )
    if inputs.command == "check" and inputs.checkpoint is None:
        raise SettingsError(
            "command: check needs a checkpoint",
            "Give the input checkpoint, or use command: auto for all that the change touches.",
        )
    return inputs


class _Given:
    """The environment's strings; what is not set is empty."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        value = self._environ.get(PREFIX + name.upper().replace("-", "_"), "").strip()
        return value or None

    def lines(self, name: str) -> tuple[str, ...]:
        lines = (line.strip() for line in (self.text(name) or "").splitlines())
        return tuple(line for line in lines if line)

    def truth(self, name: str, *, default: bool) -> bool:
        value = self.text(name)
        if value not in {None, "true", "false"}:
            raise _refused(name, str(value), "true or false")
        return default if value is None else value == "true"

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices, the first of which is the default."""
        value = self.text(name) or choices[0]
        if value not in choices:
            raise _refused(name, value, f"one of {', '.join(choices)}")
        return value


def _refused(name: str, value: str, wanted: str) -> SettingsError:
    return SettingsError(f"input {name} is {value!r}", f"Write {wanted}.")
