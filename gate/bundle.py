"""What an evaluation reads beside weights, packed for a runner without a network.

A bundle is a directory: the settings and what they name at the same places, data sets as their
cache keeps them, NLTK's sentence data, and `bundle.json` with the SHA-256 of every file.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from gate import __version__, drift, harness, preflight, records
from gate.errors import GateError, SettingsError
from gate.journal import cache_directory
from gate.policy import named, present
from gate.records import Bundle
from gate.request import Request
from gate.settings import DEFAULT_FILE

MANIFEST = "bundle.json"
NAMED = "QUANT_GATE_BUNDLE"
DATASETS = "huggingface/datasets"
SENTENCES = "nltk_data"

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".onnx", ".msgpack")
"""Endings of files that a bundle never holds: checkpoints reach a runner on their own way."""

LEAVINGS = ("cache-", "tmp")
"""How files begin that `datasets` leaves beside a data set, and makes again."""


def pack(request: Request, directory: Path) -> Bundle:
    """Write a bundle; one that is there is replaced when the new one is complete.

    Raises:
        SettingsError: The settings name what cannot be carried elsewhere.
        BackendUnavailableError: A data set can neither be fetched nor is it here.
        GateError: The directory is something else, or cannot be written.
    """
    if directory.exists() and not _replaceable(directory):
        raise GateError(
            f"{directory} exists and is no bundle", "Name a new directory, or an earlier bundle."
        )
    preflight.require_packages()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as new:
            made = Path(new, "new")
            made.mkdir()
            for place, source in _contents(request):
                _copy(source, made / place)
            settings = request.settings_file or request.root / DEFAULT_FILE
            text = settings.read_text(encoding="utf-8") if settings.is_file() else "version: 1\n"
            records.write_text(made / DEFAULT_FILE, text)
            bundle = Bundle(
                gate_version=__version__,
                versions=preflight.versions(),
                files=_digests(made),
                date=records.now(),
            )
            records.write(made / MANIFEST, bundle)
            if directory.exists():
                directory.replace(Path(new, "old"))
            made.replace(directory)
    except OSError as error:
        raise GateError(
            f"{directory} cannot be written: {error}", "Name a directory that you may write to."
        ) from error
    return bundle


def use(settings_root: Path) -> None:
    """Let the libraries read a bundle's data, where there is a bundle, instead of the hub.

    Which one: QUANT_GATE_BUNDLE, else the one in which the settings lie, else the one that an
    image keeps beside its packages. To be called before those libraries are imported.

    Args:
        settings_root: Directory of the settings.

    Raises:
        GateError: The bundle is not whole, or its data cannot be unpacked.
    """
    directory = _found(settings_root)
    if directory is None:
        return
    unpacked = _unpacked(directory, _read(directory))
    sentences = [str(directory / SENTENCES), os.environ.get("NLTK_DATA", "")]
    os.environ["NLTK_DATA"] = os.pathsep.join(filter(None, sentences))
    os.environ["HF_DATASETS_CACHE"] = str(unpacked / DATASETS)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def doctor(settings_root: Path) -> Iterator[preflight.Check]:
    """Whether every file of the bundle in use is what was packed; nothing without a bundle."""
    directory = _found(settings_root)

    def whole() -> str:
        assert directory is not None
        bundle = _read(directory)
        _require_whole(directory, bundle, bundle.files)
        return f"{directory}, {len(bundle.files)} files, made {bundle.date}"

    if directory is not None:
        yield preflight.attempt("bundle", whole)


def _found(settings_root: Path) -> Path | None:
    named = os.environ.get(NAMED)
    if named:
        return Path(named)
    places = (settings_root, Path(sys.prefix) / "bundle")
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def _read(directory: Path) -> Bundle:
    """What a bundle says of itself.

    Raises:
        GateError: It is none, or names a file outside of it.
    """
    hint = "Pack it again with this quant-gate: gate bundle -o DIRECTORY"
    try:
        bundle = records.read(directory / MANIFEST, Bundle)
    except GateError as error:
        raise GateError(f"{directory} is no bundle: {error.message}", hint) from error
    for name in bundle.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise GateError(f"the bundle {directory} names {name}, outside of it", hint)
    return bundle


def _replaceable(directory: Path) -> bool:
    return (directory / MANIFEST).is_file() or (directory.is_dir() and not any(directory.iterdir()))


def _contents(request: Request) -> Iterator[tuple[Path, Path]]:
    """Place in the bundle and source of everything but the settings."""
    settings, root = request.settings, request.root
    required = [rule.baseline for rule in settings.checkpoints] + [settings.answers]
    yield from _beside(root, (root / name for name in required if name))
    yield from _beside(root, sorted(root / name for name in present(named(settings), root)))
    if settings.backend == "replay":
        return
    for run in settings.task_runs:
        found = harness.sources(run, root, settings.include_path, settings.allow_unsafe_tasks)
        yield from _beside(root, found.files)
        yield from _cached(found.data)
        if found.sentences is not None:
            place = Path(SENTENCES, "tokenizers")
            for file in _files(found.sentences) if found.sentences.is_dir() else [found.sentences]:
                yield place / file.relative_to(found.sentences.parent), file
    for metric in settings.perplexity_metrics:
        text = metric.perplexity
        if text.file is not None:
            yield from _beside(root, [root / text.file])
        else:
            yield from _cached(drift.data_files(text))


def _beside(root: Path, files: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Files that the settings name: they keep their place beside them.

    Raises:
        SettingsError: One lies elsewhere.
    """
    for file in files:
        place = Path(os.path.relpath(file.resolve(), root.resolve()))
        if place.parts[0] == os.pardir:
            raise SettingsError(
                f"the settings name {file}, which lies outside their directory",
                f"Move it below {root} and name it from there.",
            )
        yield place, file


def _cached(files: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """The whole data set to which cached files belong, its description included."""
    import datasets

    cache = Path(datasets.config.HF_DATASETS_CACHE)
    for directory in dict.fromkeys(file.parent for file in files):
        for file in _files(directory):
            if not file.name.startswith(LEAVINGS) and file.suffix != ".lock":
                yield Path(DATASETS) / file.relative_to(cache), file


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def _copy(source: Path, target: Path) -> None:
    if source.name.endswith(WEIGHTS):
        raise SettingsError(
            f"{source} holds weights, and a bundle holds none",
            "Take it out of what the settings name.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise SettingsError(
            f"the settings name {source}, which does not exist", "Mend the path in the settings."
        ) from error


def _digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): _digest(path)
        for path in _files(directory)
        if path != directory / MANIFEST
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(directory: Path, bundle: Bundle) -> Path:
    """A copy of the data sets that may be written to, which their library must; made once."""
    names = [name for name in bundle.files if name.startswith(f"{DATASETS}/")]
    content = "".join(f"{name} {bundle.files[name]}\n" for name in sorted(names))
    kept = cache_directory() / "bundles" / hashlib.sha256(content.encode()).hexdigest()[:32]
    if kept.is_dir():
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as new:
            made = Path(new, "new")
            (made / DATASETS).mkdir(parents=True)
            for name in names:
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / name, made / name)
            _require_whole(made, bundle, names)
            with contextlib.suppress(OSError):  # another run was faster
                made.replace(kept)
    except OSError as error:
        raise GateError(
            f"the data sets of {directory} cannot be unpacked: {error}",
            "Name a writable directory with QUANT_GATE_CACHE, and copy the bundle again.",
        ) from error
    return kept


def _require_whole(directory: Path, bundle: Bundle, names: Iterable[str]) -> None:
    for name in names:
        path = directory / name
        if not path.is_file():
            raise GateError(f"{path} of the bundle is missing", "Copy the bundle again.")
        if _digest(path) != bundle.files[name]:
            raise GateError(f"{path} is not what was packed", "Copy the bundle again.")
