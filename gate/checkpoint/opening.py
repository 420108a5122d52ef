"""Find and open checkpoints."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gate.checkpoint.contract import Checkpoint, Container, Problem
from gate.checkpoint.files import pointers, read_json
from gate.checkpoint.store import Directory, Store
from gate.checkpoint.weights import groups, read_weights
from gate.errors import CheckpointError, SettingsError


def is_checkpoint(path: Path, containers: Sequence[Container]) -> bool:
    """Whether `path` holds a configuration or weights itself."""
    return (path / "config.json").is_file() or any(
        next(path.glob(f"*{container.suffix}"), None) for container in containers
    )


def find_checkpoints(path: Path, containers: Sequence[Container]) -> tuple[Path, ...]:
    """`path` if it is a checkpoint, else the nearest ones below it, sorted.

    Raises:
        SettingsError: `path` does not exist or is not a directory.
    """
    _require_directory(path)
    if is_checkpoint(path, containers):
        return (path,)
    return _children(path, containers)


def find_models(
    names: Sequence[str], containers: Sequence[Container]
) -> tuple[tuple[str, ...], ...]:
    """The models in one directory, each as the `only` of `open_checkpoint`.

    A directory is one checkpoint, `()`, unless it holds several files that are a whole model
    each, as GGUF files are.

    Args:
        names: Everything that lies in the directory.
        containers: Consulted in order.
    """
    found: list[tuple[str, ...]] = []
    for container in containers:
        if container.index_suffix is None:
            found += groups(names, container.suffix)
        elif any(name.endswith(container.suffix) for name in names):
            found.append(())
    return tuple(found) if len(found) > 1 else ((),)


def open_checkpoint(
    path: Path,
    containers: Sequence[Container],
    *,
    source: str = "",
    revision: str | None = None,
    store: Store | None = None,
    only: Sequence[str] = (),
) -> Checkpoint:
    """Open a checkpoint by its headers alone.

    Args:
        path: Its directory.
        containers: Consulted in order.
        source: What the user called it.
        revision: The hub's commit.
        store: Where its files are read, if not in `path`.
        only: Weight files to which the look is limited; the others count as not asked for.

    Raises:
        SettingsError: `path` does not exist or is not a directory.
        CheckpointError: `path` holds only other checkpoints, or several models.
    """
    children = _local_children(path, containers) if store is None else ()
    store = store or Directory(path)
    if not only:
        _require_one_model(find_models(store.names, containers), source or str(path))
    problems: list[Problem] = []
    weights = read_weights(store, containers, problems, only)
    container = weights["container"]
    # A file that is a whole model describes itself; config.json is the original's, if there.
    whole = container is not None and container.index_suffix is None
    configurations = _configurations(store, whole, not only and not whole, problems)
    files = tuple(name for name in store.names if store.refusal(name) is None)
    problems += pointers(store, () if only else files, problems)
    return Checkpoint(
        source=source or str(path),
        store=store,
        path=path,
        revision=revision,
        files=files,
        children=children,
        complete=not only or (whole and _is_whole(store, container, only)),
        problems=tuple(problems),
        **configurations,
        **weights,
    )


def _configurations(
    store: Store, whole: bool, required: bool, problems: list[Problem]
) -> dict[str, Any]:
    """The JSON files beside the weights.

    Args:
        whole: Whether the weight file is a whole model, to which no file declares anything.
        required: Whether config.json has to be there.
    """
    config = read_json(store, "config.json", "config-json-unreadable", problems, required=required)
    hf_quant = read_json(store, "hf_quant_config.json", "quant-config-unreadable", problems)
    config = config or {}
    return {
        "config": config,
        "quantization_config": None if whole else _declared(config, problems),
        "hf_quant_config": None if whole else hf_quant,
        "generation_config": read_json(
            store, "generation_config.json", "generation-config-unreadable", problems
        ),
    }


def _is_whole(store: Store, container: Container, only: Sequence[str]) -> bool:
    """Whether the named files are all that a model consists of."""
    return set(only) in map(set, groups(store.names, container.suffix))


def _require_one_model(models: Sequence[Sequence[str]], source: str) -> None:
    if models[0]:
        names = [model[0] for model in models]
        raise CheckpointError(
            f"{source} holds {len(models)} models: {', '.join(names[:5])}",
            f"Name one of them, for example: gate lint {source}/{names[0]}",
        )


def _local_children(path: Path, containers: Sequence[Container]) -> tuple[Path, ...]:
    """Checkpoints below a directory that is one itself."""
    _require_directory(path)
    children = _children(path, containers)
    if children and not is_checkpoint(path, containers):
        names = ", ".join(str(child) for child in children)
        raise CheckpointError(
            f"{path} has no config.json; it holds {len(children)} checkpoints: {names}",
            f"Name one of them, for example: gate check {children[0]}",
        )
    return children


def _require_directory(path: Path) -> None:
    if not path.exists():
        raise SettingsError(
            f"{path} does not exist",
            "Name the directory that holds config.json and the weights, or org/name@revision.",
        )
    if not path.is_dir():
        raise SettingsError(
            f"{path} is a file, not a directory", f"Name its directory: gate check {path.parent}"
        )


def _children(path: Path, containers: Sequence[Container]) -> tuple[Path, ...]:
    """Nearest checkpoints below `path`, sorted, at most four levels down, links not followed."""
    found: list[Path] = []
    level = [path]
    for _ in range(4):
        below = sorted(entry for directory in level for entry in _directories(directory))
        level = []
        for entry in below:
            (found if is_checkpoint(entry, containers) else level).append(entry)
    return tuple(found)


def _directories(path: Path) -> list[Path]:
    """What could hold a checkpoint; nothing where `path` may not be read."""
    if not os.access(path, os.R_OK | os.X_OK):
        return []
    entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def _declared(config: Mapping[str, Any], problems: list[Problem]) -> Mapping[str, Any] | None:
    """config.json's quantization_config, the text model's where the model is multimodal."""
    nested = config.get("text_config")
    declared = config.get("quantization_config")
    if declared is None and isinstance(nested, Mapping):
        declared = nested.get("quantization_config")
    if declared is None or isinstance(declared, Mapping):
        return declared
    problems.append(
        Problem(
            "quant-config-unreadable",
            f"quantization_config is {type(declared).__name__}, not an object",
            "Export the checkpoint again.",
            file="config.json",
        )
    )
    return None
