"""What the user asked for, and the opened checkpoint that it is about."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gate.checkpoint import Checkpoint
from gate.evaluate import Progress
from gate.quantization import Format
from gate.records import EvalResult, LintResult, Report, Size, Target
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
        command: The command that repeats this run.
        progress: How to show progress.
        store: Writes what was measured, before the journal is given up.
    """

    checkpoint: str
    settings: Settings
    root: Path
    command: str
    progress: Progress
    store: Callable[[EvalResult | Report], None]
    settings_file: Path | None = None
    baseline: Path | None = None
    full: bool = False


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
    started: float

    @property
    def weight_bits(self) -> int | None:
        """Declared width of a weight; 16 for an unquantized checkpoint."""
        return self.form.weight_bits(self.checkpoint) if self.form else FULL_PRECISION_BITS
