"""From what the user named to checkpoints that are opened, linted, weighed and reported."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gate import __version__, event, hub, verdict
from gate import fit as fitting
from gate import lint as linting
from gate import reference as comparing
from gate import size as sizing
from gate.checkpoint import Checkpoint, Directory, find_checkpoints, find_models, open_checkpoint
from gate.checkpoint.files import read_json
from gate.checkpoint.weights import groups
from gate.containers import CONTAINERS
from gate.errors import CheckpointError, SettingsError
from gate.formats import FORMATS
from gate.quantization import identify
from gate.records import BaselineInfo, EvalResult, Report, Target, Verdict, now
from gate.request import Look, Request, Subject
from gate.rule import Evidence
from gate.rules import RULES

SUFFIXES = tuple(container.suffix for container in CONTAINERS)
WHOLE = tuple(container.suffix for container in CONTAINERS if container.index_suffix is None)
"""Endings of files that are a whole model each, or the first of its series."""


class Chosen(NamedTuple):
    """One checkpoint that will be judged.

    Attributes:
        files: The weight files to which the look is limited; empty for all.
    """

    source: hub.Source
    files: tuple[str, ...] = ()


def choose(names: Sequence[str], *, whole: bool = False) -> list[Chosen]:
    """The checkpoints that names mean, each once, in the order of the names.

    A directory is a checkpoint, or holds them; files of one directory are judged together, and a
    JSON file stands for its directory.

    Args:
        names: Directories, files and `org/name@revision`.
        whole: Whether any file stands for its directory, and one that belongs to no model is
            passed over: what a hook that is given changed files wants.

    Raises:
        SettingsError: A name is neither directory, nor weights, nor configuration.
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    found: dict[Chosen, None] = {}
    files: dict[Path, list[str]] = {}
    for name in names:
        path = Path(name)
        if not path.is_file():
            source = hub.remote(name)
            found |= dict.fromkeys(_below(source) if source.store is None else _models(source))
        elif whole or path.suffix == ".json":
            if not whole or _holds_model(path.parent):
                found |= dict.fromkeys(_models(_local(path.parent)))
        elif path.name.endswith(SUFFIXES):
            files.setdefault(path.parent, []).append(path.name)
        else:
            raise SettingsError(
                f"{name} is a file, and neither weights ({', '.join(SUFFIXES)}) nor configuration",
                f"Name its directory: gate lint {path.parent}",
            )
    for directory, named in files.items():
        source = _local(directory)
        found |= dict.fromkeys([] if Chosen(source) in found else _grouped(source, named))
    return list(found)


def lint(
    request: Request, checkpoints: Sequence[str], look: Look, *, whole: bool = False
) -> list[Report]:
    """Static validation: one report a checkpoint.

    Args:
        request: The settings, and the command that repeats this run.
        checkpoints: Directories, files and `org/name@revision`; see `choose`.
        look: What is looked at.
        whole: Whether a named file stands for its whole checkpoint.
    """
    reports = []
    for chosen in choose(checkpoints, whole=whole):
        subject = opened(request, chosen, look)
        reports.append(report(request, subject, verdict.decide(subject.lint, ())))
    return reports


def report(
    request: Request,
    subject: Subject,
    decided: Verdict,
    result: EvalResult | None = None,
    info: BaselineInfo | None = None,
) -> Report:
    """Everything that is told of one checkpoint."""
    return Report(
        gate_version=__version__,
        checkpoint=subject.checkpoint.source,
        revision=subject.checkpoint.revision,
        files=subject.files,
        runtime_quantization=None if decided.stage == "lint" else subject.quantized,
        command=request.command,
        settings=request.settings.model_dump(mode="json"),
        lint=subject.lint,
        size=subject.size,
        evaluation=result,
        baseline=info,
        verdict=decided,
        policy=subject.policy,
        policy_digest=request.policy_digest if result else None,
        digests=subject.digests if result else {},
        run_id=event.own_run_id(os.environ),
        date=now(),
        duration_s=round(time.monotonic() - subject.started, 1),
    )


def alone(request: Request) -> Subject:
    """The one checkpoint that a request names, all of it on this machine.

    Raises:
        SettingsError: The name is no checkpoint's.
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    named = request.checkpoint
    if named.endswith(WHOLE) and Path(named).is_file():
        (chosen,) = choose([named])
    else:
        chosen = Chosen(hub.resolve(named))
    meant = request.settings.target
    return opened(request, chosen, Look(target=Target(**meant.model_dump()) if meant else None))


def opened(request: Request, chosen: Chosen, look: Look) -> Subject:
    """Open a checkpoint, lint it, weigh it."""
    started = time.monotonic()
    source = chosen.source
    checkpoint = open_checkpoint(
        source.path,
        CONTAINERS,
        source=source.name,
        revision=source.revision,
        store=source.store,
        only=chosen.files,
    )
    rule = request.rule_for(source)
    reference = _reference(rule.reference, request.tree)
    form = identify(checkpoint, FORMATS)
    layers = linting.walk(checkpoint, form)
    original = unquantized(look.reference) if look.reference else None
    evidence = Evidence(
        checkpoint,
        form,
        layers,
        reference=comparing.compare(checkpoint, form, layers, original) if original else None,
        fit=fitting.fit(checkpoint, form, layers, look.target) if look.target else None,
    )
    weighed = (checkpoint, form, original or reference, layers)
    return Subject(
        checkpoint=checkpoint,
        files=chosen.files,
        form=form,
        lint=linting.lint(
            evidence,
            RULES,
            request.settings.ignore,
            select=look.select,
            headers_only=look.headers_only,
        ),
        size=sizing.size(*weighed) if checkpoint.tensors else None,
        rule=rule,
        reference=reference,
        policy=request.policy_for(source),
        started=started,
        runtime=request.settings.runtime_quantization,
    )


def unquantized(name: str) -> Checkpoint:
    """The checkpoint that others were made from; its weights will be read.

    Args:
        name: Directory, or org/name@revision.

    Raises:
        SettingsError: There is no such directory.
        BackendUnavailableError: The hub or the repository cannot be reached.
    """
    source = hub.resolve(name)
    return open_checkpoint(source.path, CONTAINERS, source=source.name, revision=source.revision)


def refuse_unfetched(subject: Subject) -> None:
    """A checkout without its LFS files is not a bad model.

    Raises:
        CheckpointError: With the command that fetches them.
    """
    pointers = [p.file for p in subject.checkpoint.problems if p.rule == "lfs-pointer" and p.file]
    if not pointers:
        return
    path = subject.checkpoint.path
    git = ["git", "-C", str(path), "rev-parse", "--show-prefix"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    if found.returncode == 0:
        raise CheckpointError(
            f"{len(pointers)} files of {path} are Git LFS pointers, for example {pointers[0]}",
            f'Fetch them: git lfs pull --include "{found.stdout.strip()}**"',
        )


def _below(source: hub.Source) -> list[Chosen]:
    """The models in a directory, or in the checkpoints below one that is none itself."""
    found = find_checkpoints(source.path, CONTAINERS)
    directories = [source if path == source.path else _local(path) for path in found] or [source]
    return [chosen for directory in directories for chosen in _models(directory)]


def _models(source: hub.Source) -> list[Chosen]:
    """The models in one directory: one, unless it holds several GGUF files."""
    store = source.store or Directory(source.path)
    return [Chosen(source, files) for files in find_models(store.names, CONTAINERS)]


def _grouped(source: hub.Source, named: Sequence[str]) -> Iterator[Chosen]:
    """The named weight files of one directory, by the model to which they belong.

    The first file of a series means all of it, as to what runs such files.
    """
    series = {
        files[0]: files
        for suffix in WHOLE
        for files in groups(Directory(source.path).names, suffix)
    }
    left = {file: None for name in named for file in series.get(name, (name,))}
    for model in _models(source):
        files = tuple(name for name in left if name in model.files)
        if files:
            yield Chosen(source, files)
        left = {name: None for name in left if name not in files}
    if left:
        yield Chosen(source, tuple(left))


def _local(path: Path) -> hub.Source:
    return hub.Source(path, str(path), None)


def _holds_model(directory: Path) -> bool:
    """Whether a directory has weights, or the configuration of a model."""
    store = Directory(directory)
    if any(name.endswith(SUFFIXES) for name in store.names):
        return True
    config = read_json(store, "config.json", "config-json-unreadable", [], required=False)
    return config is not None and "model_type" in config


def _reference(name: str | None, root: Path) -> Checkpoint | None:
    """The unquantized checkpoint of the settings, where it is a local directory."""
    if name is None or hub.is_repository(name):
        return None
    path = root / name
    return open_checkpoint(path, CONTAINERS, source=name) if path.is_dir() else None
