"""What the user asked for, and the opened checkpoint that it is about."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gate import baseline, digests
from gate.checkpoint import Checkpoint
from gate.evaluate import Progress
from gate.hub import Source
from gate.policy import Trusted, working
from gate.quantization import Format
from gate.records import Calibration, EvalResult, LintResult, Policy, Report, Size, Target
from gate.settings import CheckpointRule, Settings

FULL_PRECISION_BITS = 16


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        checkpoint: Path or org/name@revision.
        settings: What is measured.
        root: Directory to which the settings' paths are relative.
        settings_file: Where they were read; None for the defaults.
        baseline: The stored baseline, where it was named.
        full: Measure everything even where the verdict is settled.
        trusted: Where the settings are those of a commit; None for the working tree.
        reuse: Whether a stored verdict about the same bytes will do; None to keep none either.
        command: The command that repeats this run.
        progress: How to show progress.
        arrays: Directory of the stored result, for the arrays that belong to it; None for none.
        store: Writes what was measured, before the journal is given up.
    """

    checkpoint: str
    settings: Settings
    root: Path
    command: str
    progress: Progress
    store: Callable[[EvalResult | Report | Calibration], None]
    settings_file: Path | None = None
    baseline: Path | None = None
    full: bool = False
    trusted: Trusted | None = None
    reuse: bool | None = None
    arrays: Path | None = None

    @property
    def tree(self) -> Path:
        """Directory in the working tree to which references and globs are relative."""
        return self.trusted.tree if self.trusted else self.root

    def rule_for(self, source: Source) -> CheckpointRule:
        """The entry of the settings that covers a checkpoint."""
        if self.trusted is not None:
            return self.trusted.rule_for(source.path, _pin(source))
        return self.settings.rule_for(source.path, self.root, _pin(source))

    def policy_for(self, source: Source) -> Policy | None:
        """By whose settings a checkpoint is judged; None for those of the working tree."""
        return self.trusted.record_for(source.path, _pin(source)) if self.trusted else None

    @cached_property
    def policy_digest(self) -> str:
        """SHA-256 over the settings and everything that they name.

        Raises:
            SettingsError: One of the files cannot be read.
        """
        here = (self.settings, self.settings_file, self.root)
        return (self.trusted.record if self.trusted else working(*here)).digest

    def shown(self, path: Path) -> str:
        """A file as reports name it: from here, or from the settings' directory."""
        places = (Path.cwd(), self.root)
        return str(next((path.relative_to(p) for p in places if path.is_relative_to(p)), path))


def _pin(source: Source) -> tuple[str, str] | None:
    """Repository and commit of a checkpoint on the hub."""
    return (source.name, source.revision) if source.revision else None


@dataclass(frozen=True)
class Look:
    """What static validation looks at, beside the headers.

    Attributes:
        select: Only these rules; empty for all.
        headers_only: Leave out the rules that read data.
        reference: The unquantized checkpoint with which every layer is compared.
        target: The runtime and hardware that are meant.
    """

    select: tuple[str, ...] = ()
    headers_only: bool = False
    reference: str | None = None
    target: Target | None = None


@dataclass(frozen=True)
class Subject:
    """An opened checkpoint and what its headers say.

    Attributes:
        files: The weight files to which the look was limited; empty for all.
    """

    checkpoint: Checkpoint
    files: tuple[str, ...]
    form: Format | None
    lint: LintResult
    size: Size | None
    rule: CheckpointRule
    reference: Checkpoint | None
    policy: Policy | None
    started: float

    @cached_property
    def weights_digest(self) -> str:
        """See `baseline.weights_digest`; reads every byte, once."""
        return baseline.weights_digest(self.checkpoint, self.digests)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file of the directory; of its weights only, where files were named."""
        path = self.checkpoint.path
        names = self.checkpoint.weight_files if self.files else digests.shipped(path)
        return digests.of(path, {*names, *self.checkpoint.weight_files})

    @cached_property
    def reference_digest(self) -> str | None:
        """The same of the reference, where it is at hand."""
        return baseline.weights_digest(self.reference) if self.reference else None

    @property
    def weight_bits(self) -> int | None:
        """Declared width of a weight; 16 for an unquantized checkpoint."""
        return self.form.weight_bits(self.checkpoint) if self.form else FULL_PRECISION_BITS
