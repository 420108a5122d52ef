"""Shards of one run become its result: `gate merge`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from gate import drift, records
from gate.answers import counting
from gate.backends.replay import Replay
from gate.batching import order
from gate.errors import MergeError
from gate.plain import plain
from gate.records import (
    Distributions,
    EvalResult,
    PerplexityResult,
    ScoredDocument,
    Shard,
    TaskSetup,
)
from gate.results import by_metric

JOINED = frozenset(
    {
        "model", "served", "kernel", "tasks", "answers", "answer_stats", "perplexities",
        "rounding_floor", "distributions", "unread", "throughput", "shard", "replicas", "date",
        "duration_s",
    }
)  # fmt: skip
"""Fields of a result that each shard has of its own; all others must agree."""

READ = ("name", "text_digest", "tokens_digest", "window", "scored")
"""Fields of a perplexity that say what was read."""

AGAIN = "Measure every shard again with one version of quant-gate."

NAMED = 5
"""Differences named in a message."""


class Part(NamedTuple):
    """A shard's result and the file that it was read from."""

    path: Path
    result: EvalResult
    shard: Shard


def merge(paths: Sequence[Path], directory: Path) -> EvalResult:
    """The result of the run whose shards these are, sample for sample.

    Distributions over a model's own answers are those of the shards, one after the other; what was
    measured once for the whole run is the first shard's.

    Args:
        paths: What `gate eval --shard` stored, one file a shard, in any order; array files beside.
        directory: Where the array files that belong to the result are written.

    Raises:
        MergeError: A shard is missing, doubled, damaged or one of another run.
        BaselineError: An array file cannot be read.
    """
    parts = [_part(path) for path in paths]
    _require_each_once(parts)
    _require_one_run(parts)
    parts.sort(key=lambda part: part.shard.index)
    results = [part.result for part in parts]
    first = results[0]
    documents = {setup.task: _documents(setup, parts) for setup in first.setups}
    answers = {
        task: tuple(sorted((d.answer for d in found if d.answer), key=lambda a: a.doc_id))
        for task, found in documents.items()
    }
    texts = list(dict.fromkeys(text.name for result in results for text in result.perplexities))
    return first.model_copy(
        update={
            "kernel": _measured(parts)[0].result.kernel,
            "tasks": tuple(
                found
                for task, scored in documents.items()
                for found in by_metric(task, scored, partial(_higher_is_better, results, task))
            ),
            "answers": {task: found for task, found in answers.items() if found},
            "answer_stats": counting.counted(first.setups, documents),
            "perplexities": tuple(_perplexity(parts, name) for name in texts),
            "distributions": tuple(_distributions(parts, directory)),
            "unread": tuple(dict.fromkeys(chain.from_iterable(r.unread for r in results))),
            "shard": None,
            "shards": len(parts),
            "date": max(result.date for result in results),
            "duration_s": max(result.duration_s for result in results),
        }
    )


def _part(path: Path) -> Part:
    result = records.read(path, EvalResult)
    if result.shard is None:
        raise MergeError(
            f"{path} is a whole result, not a shard of one",
            "Name what gate eval --shard stored.",
        )
    return Part(path, result, result.shard)


def _require_each_once(parts: Sequence[Part]) -> None:
    """Every shard of one run, and none twice."""
    count = parts[0].shard.count
    for part in parts:
        if part.shard.count != count:
            raise MergeError(
                f"{part.path} is shard {part.shard}, and {parts[0].path} is {parts[0].shard}",
                "Name the shards of one run.",
            )
    seen = Counter(part.shard.index for part in parts)
    doubled = next((index for index, times in seen.items() if times > 1), None)
    if doubled is not None:
        files = ", ".join(str(part.path) for part in parts if part.shard.index == doubled)
        raise MergeError(f"shard {doubled}/{count} is named twice: {files}", "Name each one once.")
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in seen]
    if missing:
        raise MergeError(
            f"of {count} shards {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            "missing",
            f"Measure it: gate eval CHECKPOINT --shard {missing[0]} -o FILE",
        )


def _require_one_run(parts: Sequence[Part]) -> None:
    """The same model, asked and read in the same way.

    Raises:
        MergeError: Naming what differs.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.shard.settings != first.shard.settings:
            raise _unlike(first, part, ["the settings are others"])
        found = _differences(_identity(first.result), _identity(part.result))
        said = [f"{name} is {ours} and {theirs}" for name, ours, theirs in found]
        if said:
            raise _unlike(first, part, said)
    asked = _measured(parts)
    for part in asked[1:]:
        ours, theirs = asked[0].result.kernel, part.result.kernel
        if ours != theirs:
            raise _unlike(asked[0], part, [f"kernel is {_shown(ours)} and {_shown(theirs)}"])


def _measured(parts: Sequence[Part]) -> list[Part]:
    """The shards that answered documents, by which the kernel is known; all if none did."""
    return [part for part in parts if part.result.tasks] or list(parts)


def _unlike(first: Part, other: Part, said: Sequence[str]) -> MergeError:
    more = f", and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return MergeError(
        f"{first.path} and {other.path} are not of one run: {'; '.join(said[:NAMED])}{more}",
        "Measure every shard with the same files, settings and versions, on the same kind of "
        "machine; with batch_size: auto, name a number.",
    )


def _identity(result: EvalResult) -> dict[str, Any]:
    """What the shards of one run have in common."""
    served = result.served.model_dump(exclude={"host"}) if result.served else None
    return result.model_dump(mode="json", exclude=set(JOINED)) | {"served": served}


def _differences(ours: Any, theirs: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two values differ: its name, and what stands there in each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            at = f"{name}.{key}" if name else key
            yield from _differences(ours.get(key), theirs.get(key), at)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (each, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(each, other, f"{name}.{index}")
    elif ours != theirs:
        yield name, _shown(ours), _shown(theirs)


def _shown(value: object) -> str:
    return "none" if value is None else plain(str(value), limit=80)


def _documents(setup: TaskSetup, parts: Sequence[Part]) -> list[ScoredDocument]:
    """Every document of a task in committed order; none where no shard was asked."""
    found: dict[int, ScoredDocument] = {}
    for part in parts:
        metrics = [each for each in part.result.tasks if each.task == setup.task]
        asked = [[sample.doc_id for sample in each.samples] for each in metrics]
        if any(each.early_stop for each in metrics) or any(ids != asked[0] for ids in asked):
            raise _damaged(part, setup.task)
        replay = Replay(part.result, part.result.weights_digest)
        for document in replay.score(setup.task, asked[0]) if asked else ():
            if document.doc_id in found:
                raise MergeError(
                    f"document {document.doc_id} of {setup.task} is in {part.path} and in another "
                    "shard",
                    AGAIN,
                )
            found[document.doc_id] = document
    if found and len(found) != setup.n_documents:
        raise MergeError(
            f"the shards hold {len(found)} of the {setup.n_documents} documents of {setup.task}",
            AGAIN,
        )
    return [found[doc_id] for doc_id in order(list(found), parts[0].result.seed, setup.task)]


def _higher_is_better(results: Sequence[EvalResult], task: str, metric: str) -> bool:
    found = (result.task(task, metric) for result in results)
    return next(each.higher_is_better for each in found if each is not None)


def _read(text: PerplexityResult) -> tuple[int, ...]:
    """The windows of a text that a shard has, in ascending order or as they were read."""
    return text.window_ids or tuple(range(len(text.window_nll)))


def _perplexity(parts: Sequence[Part], name: str) -> PerplexityResult:
    """All windows of a text, in its order."""
    by_window: dict[int, float] = {}
    found = [(part, text) for part in parts if (text := part.result.perplexity(name))]
    first, known = found[0]
    for part, text in found:
        said = [
            f"{field} of {name} is {_shown(getattr(known, field))} and "
            f"{_shown(getattr(text, field))}"
            for field in READ
            if getattr(known, field) != getattr(text, field)
        ]
        if said:
            raise _unlike(first, part, said)
        ids = _read(text)
        whole = len(set(ids)) == len(ids) == len(text.window_nll)
        if text.early_stop or not whole or by_window.keys() & set(ids):
            raise _damaged(part, name)
        by_window |= zip(ids, text.window_nll, strict=True)
    if sorted(by_window) != list(range(len(by_window))):
        raise MergeError(f"the shards do not hold every window of {name}", AGAIN)
    nll = tuple(by_window[i] for i in sorted(by_window))
    return known.model_copy(update={"window_nll": nll, "window_ids": ()})


def _distributions(parts: Sequence[Part], directory: Path) -> Iterator[Distributions]:
    """The distributions of all shards, those over a text in its order."""
    found = chain.from_iterable(part.result.distributions for part in parts)
    for source, name, k in dict.fromkeys((each.source, each.name, each.k) for each in found):
        tops: list[drift.TopTokens] = []
        windows: list[int] = []
        for part in parts:
            record = part.result.distribution(name, source)
            if record is None:
                continue
            top = drift.store.load(part.path.parent, record)
            text = part.result.perplexity(name) if source == "text" else None
            ids = (
                sorted(_read(text)) if text is not None else [len(windows)] * len(top.sequences.ids)
            )
            if record.k != k or len(ids) != len(top.sequences.ids):
                raise _damaged(part, name)
            tops.append(top)
            windows += ids
        # Stable: answers have no order of their own.
        rows = sorted(range(len(windows)), key=windows.__getitem__)
        yield drift.store.keep(directory, name, source, drift.TopTokens.joined(tops).take(rows))


def _damaged(part: Part, name: str) -> MergeError:
    return MergeError(
        f"{part.path} does not hold shard {part.shard} of {name}",
        f"Measure it again: gate eval CHECKPOINT --shard {part.shard} -o {part.path}",
    )
