"""Read the headers of all weight files, and hold them against the index."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gate.checkpoint.contract import Container, Header, Problem, TensorInfo
from gate.checkpoint.files import read_json
from gate.checkpoint.store import Store

SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.")
SHARDS_MAX = 4096


def read_weights(
    store: Store, containers: Sequence[Container], problems: list[Problem], only: Sequence[str] = ()
) -> dict[str, Any]:
    """The headers of the indexed shards, or of every weight file where there is no index.

    Args:
        only: Weight files to which the look is limited.
    """
    for container in containers:
        index = None if only else _index(store, container)
        names = [name for name in only or store.names if name.endswith(container.suffix)]
        if index is None and not names:
            continue
        weight_map = _read_index(store, index, problems) if index else None
        if weight_map is not None:
            counts = Counter(weight_map.values())
        else:
            counts = Counter(names if only else _unindexed(names, container.suffix))
        wanted = _shards(store, counts, weight_map is not None, problems)
        tensors, metadata = _read_headers(store, container, wanted, weight_map or {}, problems)
        if weight_map is not None:
            problems += _index_problems(weight_map, tensors, problems)
        return {
            "tensors": tensors,
            "metadata": metadata,
            "weight_map": weight_map,
            "weight_files": tuple(wanted),
            "container": container,
        }
    problems.append(_no_weights(store))
    return {
        "tensors": {},
        "metadata": {},
        "weight_map": None,
        "weight_files": (),
        "container": None,
    }


def groups(names: Iterable[str], suffix: str) -> tuple[tuple[str, ...], ...]:
    """Weight files without an index that make one model each.

    A numbered series belongs together, the files that it lacks included; any other file is a
    model by itself.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        if not name.endswith(suffix):
            continue
        numbered = SHARD.fullmatch(name.removesuffix(suffix) + ".")
        if numbered is None:
            found[name] = (name,)
            continue
        stem, total = numbered["stem"], numbered["total"]
        series = f"{stem}-of-{total}"
        if series not in found:
            numbers = range(1, min(int(total), SHARDS_MAX) + 1)
            whole = [f"{stem}-{number:05}-of-{total}{suffix}" for number in numbers]
            found[series] = tuple(dict.fromkeys([*whole, name]))
        elif name not in found[series]:  # numbered beyond the total
            found[series] += (name,)
    return tuple(found.values())


def _index(store: Store, container: Container) -> str | None:
    """The index; `model`'s own where another stands beside it."""
    if container.index_suffix is None:
        return None
    found = [name for name in store.names if name.endswith(container.index_suffix)]
    return next((name for name in found if name.startswith("model.")), next(iter(found), None))


def _unindexed(names: Sequence[str], suffix: str) -> Iterator[str]:
    """Weight files without an index: the single file, or every one and the shards that lack."""
    single = f"model{suffix}"
    if single in names:
        yield single
        return
    yield from names
    numbered = [match for name in names if (match := SHARD.match(name))]
    for stem, total in {(match["stem"], match["total"]) for match in numbered}:
        for number in range(1, min(int(total), SHARDS_MAX) + 1):
            name = f"{stem}-{number:05}-of-{total}{suffix}"
            if name not in names:
                yield name


def _read_headers(
    store: Store,
    container: Container,
    names: Sequence[str],
    weight_map: Mapping[str, str],
    problems: list[Problem],
) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """All tensors, the index's choice where two shards have the same, and all metadata."""
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    for name in names:
        header = _read_header(store, name, container)
        problems += header.problems
        metadata = {**header.metadata, **metadata}
        found = {info.name: info for info in header.tensors}
        twice: dict[str, list[str]] = defaultdict(list)
        for common in found.keys() & tensors.keys():
            twice[tensors[common].file].append(common)
            if weight_map.get(common) != name:
                del found[common]
        tensors |= found
        problems += [_duplicates(name, other, sorted(both)) for other, both in twice.items()]
    return tensors, metadata


def _duplicates(name: str, other: str, common: Sequence[str]) -> Problem:
    return Problem(
        "duplicate-tensor",
        f"{name} and {other} both hold {common[0]}"
        + (f" and {len(common) - 1:,} more tensors" if len(common) > 1 else ""),
        "Keep the file that belongs to this export, and rebuild the index from the headers.",
        name,
        common[0],
    )


def _read_header(store: Store, name: str, container: Container) -> Header:
    try:
        return container.read_header(store, name)
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror or error}"
        fix = f"Make {name} readable, or download it again."
        return Header(problems=(Problem("header-unreadable", message, fix, name),))


def _read_index(store: Store, index: str, problems: list[Problem]) -> Mapping[str, str] | None:
    value = read_json(store, index, "header-unreadable", problems)
    weight_map = value.get("weight_map") if value else None
    if isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values()):
        return weight_map
    if value is not None:
        problems.append(
            Problem(
                "header-unreadable",
                f"{index} has no weight_map of tensor names to file names",
                "Export the checkpoint again.",
                file=index,
            )
        )
    return None


def _shards(
    store: Store, counts: Mapping[str, int], indexed: bool, problems: list[Problem]
) -> list[str]:
    """The named files that are there; `counts` says how many tensors an index places in each."""
    present = []
    for name in sorted(counts):
        refusal = store.refusal(name)
        if refusal is None:
            present.append(name)
        elif refusal.startswith("leads out"):
            problems.append(_escape_problem(name))
        else:
            why = f"the index places {counts[name]:,} tensors in it" if indexed else "others are"
            problems.append(
                Problem(
                    "shard-missing",
                    f"{name} is not there; {why}",
                    f"Upload or download {name} again.",
                    file=name,
                )
            )
    return present


def _escape_problem(name: str) -> Problem:
    return Problem(
        "header-unreadable",
        f"{name!r} leads out of the checkpoint's directory; it was not opened",
        "Put the weights into the checkpoint's own directory.",
        file=name,
    )


def _index_problems(
    weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo], seen: Iterable[Problem]
) -> Iterator[Problem]:
    if weight_map == {name: info.file for name, info in tensors.items()}:
        return
    broken = {problem.file for problem in seen if problem.rule != "duplicate-tensor"}
    fix = "Rebuild the index from the shards' own headers."
    for name, file in weight_map.items():
        if file not in broken and (name not in tensors or tensors[name].file != file):
            yield Problem(
                "indexed-tensor-absent",
                f"the index places {name} in {file}, which lacks it",
                fix,
                file,
                name,
            )
    for name, info in tensors.items():
        if name not in weight_map:
            yield Problem(
                "tensor-not-indexed",
                f"{info.file} holds {name}, which the index does not name",
                fix,
                info.file,
                name,
            )


def _no_weights(store: Store) -> Problem:
    pickles = [name for name in store.names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        return Problem(
            "no-weights",
            f"only pickled weights ({', '.join(pickles[:3])}): they can run code when opened",
            "Save the model as safetensors: model.save_pretrained(directory).",
            file=pickles[0],
        )
    return Problem(
        "no-weights", "no weight file (*.safetensors, *.gguf)", "Export the checkpoint again."
    )
