"""What the user asked for, and the opened checkpoint that it is about."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gate import __version__, baseline, digests
from gate.checkpoint import Checkpoint
from gate.evaluate import Progress
from gate.hub import Source
from gate.policy import Trusted, working
from gate.quantization import Format
from gate.records import (
    Calibration,
    EvalResult,
    LintResult,
    Policy,
    Report,
    Shard,
    Size,
    Target,
)
from gate.settings import CheckpointRule, RuntimeQuantization, Settings

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
        shard: Which part of the run is measured; None for all of it.
        chosen: Why the settings' backend was taken, where they left it open.
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
    shard: Shard | None = None
    chosen: str | None = None

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


def sharded(request: Request, index: int, count: int) -> Request:
    """The same for a part of the run."""
    made = hashlib.sha256(request.settings.model_dump_json().encode()).hexdigest()
    return replace(request, shard=Shard(index=index, count=count, settings=made))


def replayed(request: Request, answers: Path) -> Request:
    """The same with a stored result in the place of the model."""
    named = os.path.relpath(answers, request.root)
    changes = {"backend": "replay", "answers": named}
    return replace(request, settings=request.settings.model_copy(update=changes))


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
        runtime: How the runtime quantizes it while it loads it; None for as it is stored.
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
    runtime: RuntimeQuantization | None = None

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
    def identity(self) -> dict[str, Any]:
        """What identifies it in a result: fields of `EvalResult`."""
        checkpoint = self.checkpoint
        return {
            "gate_version": __version__,
            "model": checkpoint.source,
            "revision": checkpoint.revision,
            "weights_digest": self.weights_digest,
            "config_digest": baseline.config_digest(checkpoint),
            "tokenizer_digest": baseline.tokenizer_digest(checkpoint),
            "chat_template_sha": baseline.template_sha(checkpoint),
            "format": self.form.name if self.form else None,
            "weight_bits": self.weight_bits,
            "size": self.size,
        }

    @property
    def quantized(self) -> str | None:
        """How it is quantized at load, in words; None where it is taken as it is stored."""
        return self.runtime.label if self.runtime else None

    @property
    def weight_bits(self) -> int | None:
        """Declared width of a weight; 16 for an unquantized checkpoint."""
        if self.runtime is not None:
            return self.runtime.weight_bits
        return self.form.weight_bits(self.checkpoint) if self.form else FULL_PRECISION_BITS
