"""Baselines in a store: brought there, found again by the model that they belong to, let go."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gate import baseline, records
from gate.errors import BaselineError, BaselineMissingError
from gate.records import Entry, EvalResult, Label, write_bytes
from gate.store import Store

SHORT = 12
"""Hexadecimal digits by which people name a baseline."""


def push(store: Store, path: Path) -> Entry:
    """Keep a stored result with the array files beside it.

    Args:
        store: Where.
        path: What `gate eval` wrote.

    Raises:
        BaselineError: It cannot be read, is a shard, was stopped early, or lacks an array file.
        GateError: It is no stored result.
        StoreError: The store cannot be written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read: {error.strerror}", "Name a file that gate eval wrote."
        ) from error
    result = records.decode(content, EvalResult, path)
    baseline.require_whole(result, path)
    stopped = [*(t.early_stop for t in result.tasks), *(p.early_stop for p in result.perplexities)]
    if any(stopped):
        raise BaselineError(
            f"{path} was stopped early, so it is no baseline", "Measure it with gate eval."
        )
    arrays = {}
    for kept in result.distributions:
        file = path.parent / f"{kept.digest}.npz"
        try:
            arrays[kept.digest] = file.read_bytes()
        except OSError as error:
            raise BaselineError(
                f"{file}, which belongs to {path}, cannot be read: {error.strerror}",
                "Copy it beside the result, or measure again with gate eval.",
            ) from error
    label = Label(
        kind="baseline",
        key=result.weights_digest,
        model=result.model,
        revision=result.revision,
        date=result.date,
        facts=facts(result),
    )
    return store.put(label, content, arrays)


def facts(result: EvalResult) -> dict[str, str]:
    """What tells a baseline from others of the same model."""
    measured = [setup.task for setup in result.setups]
    measured += [f"perplexity {text.name}" for text in result.perplexities]
    return {
        "measured": ", ".join(measured),
        "template": (result.chat_template_sha or "none")[:SHORT],
        "backend": result.backend,
        "device": result.device,
        "fingerprint": baseline.fingerprint(result)[:SHORT],
    }


def named(store: Store, name: str) -> Entry:
    """The baseline of a digest's beginning, or the newest one of a model.

    Args:
        store: Where it is kept.
        name: At least four digits of its digest, or a model's name, `org/name@revision` too.

    Raises:
        BaselineMissingError: There is none.
        BaselineError: Several digests begin like that.
    """
    found = store.entries("baseline")
    by_digest = [entry for entry in found if len(name) >= 4 and entry.content.startswith(name)]
    if len({entry.content for entry in by_digest}) > 1:
        raise BaselineError(f"several baselines begin with {name}", "Give more of the digest.")
    model, _, revision = name.partition("@")
    by_model = [
        entry for entry in found if entry.model == model and revision in {"", entry.revision}
    ]
    for entry in (*by_digest, *by_model):
        return entry
    raise BaselineMissingError(
        f"{store.shown} holds no baseline {name}", "See what it holds: gate baseline list"
    )


def pull(store: Store, entry: Entry, path: Path) -> None:
    """Write a kept baseline, and its array files beside it.

    Raises:
        StoreError: It is missing or damaged.
        GateError: The directory cannot be written.
    """
    for digest in entry.attachments:
        file = path.parent / f"{digest}.npz"
        if not file.is_file():
            write_bytes(file, store.object(digest))
    write_bytes(path, store.document(entry))


def fetched(
    store: Store,
    directory: Path,
    *,
    reference_digest: str | None = None,
    model: str | None = None,
    revision: str | None = None,
) -> Path:
    """A directory with the baselines of one model, the newest of each fingerprint.

    Args:
        store: Where they are kept.
        directory: Holds what was fetched before; documents never change.
        reference_digest, model, revision: As `baseline.find` takes them.

    Raises:
        StoreError: The store cannot be read, or one is damaged.
    """
    place = directory / hashlib.sha256(store.address.encode()).hexdigest()[:SHORT]
    mine = place / (reference_digest or hashlib.sha256(f"{model}@{revision}".encode()).hexdigest())
    entries = [
        entry
        for entry in store.entries("baseline", reference_digest)
        if model is None or (entry.model, entry.revision) == (model, revision)
    ]
    newest, _ = divided(entries, keep=1)
    wanted = {mine / f"{entry.content}.json": entry for entry in newest}
    for file, entry in wanted.items():
        if not file.is_file():
            pull(store, entry, file)
    for file in mine.glob("*.json"):
        if file not in wanted:
            file.unlink(missing_ok=True)
    return mine


def divided(entries: Sequence[Entry], keep: int) -> tuple[list[Entry], list[Entry]]:
    """The newest few of each model and fingerprint, and all others.

    Args:
        entries: Newest first.
        keep: How many are among the newest of each.
    """
    counts: Counter[tuple[str, str]] = Counter()
    newest: list[Entry] = []
    others: list[Entry] = []
    for entry in entries:
        same = (entry.key, entry.facts.get("fingerprint", entry.content))
        counts[same] += 1
        (newest if counts[same] <= keep else others).append(entry)
    return newest, others
