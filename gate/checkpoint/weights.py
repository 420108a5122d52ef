"""Read the headers of all weight files, and hold them against the index."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gate.checkpoint.contract import Container, Header, Problem, TensorInfo
from gate.checkpoint.files import escapes, is_file, read_json

SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})\.")
SHARDS_MAX = 4096


def read_weights(
    root: Path, containers: Sequence[Container], problems: list[Problem]
) -> dict[str, Any]:
    """The headers of the indexed shards, or of every weight file where there is no index."""
    for container in containers:
        index = _index(root, container)
        names = sorted(entry.name for entry in root.glob(f"*{container.suffix}"))
        if index is None and not names:
            continue
        weight_map = _read_index(root, index, problems) if index else None
        if weight_map is not None:
            counts = Counter(weight_map.values())
        else:
            counts = Counter(_unindexed(names, container.suffix))
        wanted = _shards(root, counts, weight_map is not None, problems)
        tensors: dict[str, TensorInfo] = {}
        for name in wanted:
            header = _read_header(root, name, container)
            problems += header.problems
            for info in header.tensors:
                if info.name not in tensors or (weight_map or {}).get(info.name) == name:
                    tensors[info.name] = info
        if weight_map is not None:
            problems += _index_problems(weight_map, tensors, problems)
        return {
            "tensors": tensors,
            "weight_map": weight_map,
            "weight_files": tuple(wanted),
            "container": container,
        }
    problems.append(_no_weights(root))
    return {"tensors": {}, "weight_map": None, "weight_files": (), "container": None}


def _index(root: Path, container: Container) -> Path | None:
    """The index; `model`'s own where another stands beside it."""
    found = sorted(root.glob(f"*{container.index_suffix}"))
    return next((path for path in found if path.name.startswith("model.")), next(iter(found), None))


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


def _read_header(root: Path, name: str, container: Container) -> Header:
    try:
        return container.read_header(root / name, name)
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        fix = f"Make {name} readable, or download it again."
        return Header(problems=(Problem("header-unreadable", message, fix, name),))


def _read_index(root: Path, index: Path, problems: list[Problem]) -> Mapping[str, str] | None:
    value = read_json(root, index.name, "header-unreadable", problems)
    weight_map = value.get("weight_map") if value else None
    if isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values()):
        return weight_map
    if value is not None:
        problems.append(
            Problem(
                "header-unreadable",
                f"{index.name} has no weight_map of tensor names to file names",
                "Export the checkpoint again.",
                file=index.name,
            )
        )
    return None


def _shards(
    root: Path, counts: Mapping[str, int], indexed: bool, problems: list[Problem]
) -> list[str]:
    """The named files that are there; `counts` says how many tensors an index places in each."""
    present = []
    for name in sorted(counts):
        if escapes(root, name):
            problems.append(_escape_problem(name))
        elif is_file(root / name):
            present.append(name)
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
    broken = {problem.file for problem in seen}
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


def _no_weights(root: Path) -> Problem:
    pickles = sorted(p.name for p in root.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if pickles:
        return Problem(
            "no-weights",
            f"only pickled weights ({', '.join(pickles[:3])}): they can run code when opened",
            "Save the model as safetensors: model.save_pretrained(directory).",
            file=pickles[0],
        )
    return Problem("no-weights", "no weight file (*.safetensors)", "Export the checkpoint again.")
