"""Baselines: stored results, what they belong to, and whether they measured the same thing."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from gate import digests, duration, ggml, records
from gate.checkpoint import CONFIG_MAX_BYTES, Checkpoint, escapes
from gate.errors import (
    BaselineError,
    BaselineMismatchError,
    BaselineMissingError,
    CheckpointError,
    GateError,
)
from gate.harness.thinking import split
from gate.records import EvalResult, Prompting, TaskSetup
from gate.settings import BASELINES

DIRECTORY = BASELINES

CLOCK_SKEW = timedelta(minutes=5)
"""How far another machine's clock may be ahead of this one's."""

CONFIG_IGNORED = frozenset(
    {"quantization_config", "compression_config", "transformers_version", "dtype", "torch_dtype"}
)
"""Keys of config.json that an export may change while the model stays the same."""

TOKENIZER_STATE = frozenset({"truncation", "padding"})
"""Parts of tokenizer.json that only remember the last call, e.g. the calibration's max_length."""

TOKENIZER_DEFAULTS = frozenset({"ignore_merges", "byte_fallback", "fuse_unk"})
"""Flags of the tokenizer's model that older files leave out when they are false."""

GGUF = "gguf"
"""The format whose files hold tokenizer and configuration as well."""

TOKENIZER_FILES = ("tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt",
                   "merges.txt", "added_tokens.json")  # fmt: skip
"""What defines a tokenizer where there is no tokenizer.json."""


@dataclass(frozen=True)
class Conditions:
    """How a checkpoint is, or is about to be, measured.

    Attributes:
        tokens_digests: By the name of each perplexity text, see `PerplexityResult`.
        prompts_digests: By task, see `Prompting.tokens_digests`; None where the tokenizer is told
            by its files.
        optional: Names of texts without a limit, which a baseline may lack.
        api: By which a server was asked; None where it was none.
        runtime_quantization: See `EvalResult`.
    """

    setups: tuple[TaskSetup, ...]
    template_sha: str | None
    tokenizer_digest: str
    config_digest: str
    backend: str
    activations: str
    api: str | None = None
    runtime_quantization: str | None = None
    tokens_digests: Mapping[str, str] = field(default_factory=dict)
    prompts_digests: Mapping[str, str] | None = None
    optional: frozenset[str] = frozenset()
    device: str | None = None
    dtype: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, result: EvalResult) -> Self:
        """The conditions of a stored result."""
        return cls(
            setups=stated(result),
            template_sha=result.chat_template_sha,
            tokenizer_digest=result.tokenizer_digest,
            config_digest=result.config_digest,
            backend=result.backend,
            activations=result.activations,
            api=_api(result),
            runtime_quantization=result.runtime_quantization,
            tokens_digests={text.name: text.tokens_digest for text in result.perplexities},
            prompts_digests=prompts_digests(result.prompting) if result.format == GGUF else None,
            device=result.device,
            dtype=result.dtype,
            versions=result.versions,
        )


def weights_digest(checkpoint: Checkpoint, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over the names and contents of the weight files, whatever their order.

    Args:
        checkpoint: On this machine.
        known: SHA-256 of its files, where they were read already.

    Raises:
        CheckpointError: A weight file cannot be read, or leads out of the checkpoint.
    """
    names = sorted(checkpoint.weight_files)
    found = digests.of(checkpoint.path, names) if known is None else known
    return _digest([(name, found[name]) for name in names])


def config_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over config.json without its quantization and what only tells who wrote it.

    Of a GGUF file, over the keys that describe its model.
    """
    if checkpoint.whole_file is not None:
        return _digest(_keys(checkpoint, f"{checkpoint.metadata.get('general.architecture')}."))
    return _digest(_without_export(checkpoint.config))


def tokenizer_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over what makes tokens: vocabulary, merges, added tokens, normalizer and the like.

    An export saves the tokenizer anew: with other whitespace, with the truncation of its
    calibration, with newer files' spelling of merges. None of that changes a token.
    """
    raw = _text(checkpoint, "tokenizer.json")
    value = _parsed(raw)
    if not isinstance(value, dict) and checkpoint.whole_file is not None:
        return _digest(_keys(checkpoint, "tokenizer.ggml."))
    if not isinstance(value, dict):
        contents = [
            (name, _text(checkpoint, name)) for name in ("tokenizer.json", *TOKENIZER_FILES)
        ]
        return _digest([(name, text) for name, text in contents if text is not None])
    model = value.get("model")
    if isinstance(model, dict):
        model = {k: v for k, v in model.items() if v is not False or k not in TOKENIZER_DEFAULTS}
        if isinstance(model.get("merges"), list):
            model["merges"] = [
                m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]
            ]
        value = value | {"model": model}
    return _digest({key: part for key, part in value.items() if key not in TOKENIZER_STATE})


def template_sha(checkpoint: Checkpoint) -> str | None:
    """SHA-256 of the chat template in the checkpoint; None without one.

    Source: https://huggingface.co/docs/transformers/chat_templating (chat_template.jinja comes
    before tokenizer_config.json); of a GGUF file, its own is the one that counts.
    """
    template: Any = _text(checkpoint, "chat_template.jinja")
    if checkpoint.whole_file is not None:
        template = checkpoint.metadata.get("tokenizer.chat_template")
    elif template is None:
        config = _parsed(_text(checkpoint, "tokenizer_config.json"))
        template = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = next((t.get("template") for t in named if t.get("name") == "default"), None)
    if not isinstance(template, str) or not template:
        return None
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(result: EvalResult) -> str:
    """SHA-256 over what makes a baseline: the model's bytes, what was asked, and how it ran.

    Two of the same fingerprint are interchangeable, whenever and wherever they were made.
    """
    texts = [(text.name, text.tokens_digest) for text in result.perplexities]
    # A field that a later version adds with a default leaves older fingerprints as they are.
    setups = [
        setup.model_dump(mode="json", exclude={"documents"}, exclude_defaults=True)
        for setup in result.setups
    ]
    kept = [(each.source, each.name, each.k) for each in result.distributions]
    made: dict[str, Any] = {
        "weights": result.weights_digest,
        "suite": [sorted(setups, key=lambda setup: str(setup["task"])), sorted(texts)],
        "template": result.chat_template_sha,
        "tokenizer": result.tokenizer_digest,
        "backend": result.backend,
        "activations": result.activations,
        "dtype": result.dtype,
    }
    if kept:
        made["distributions"] = sorted(kept)
    if result.runtime_quantization is not None:
        made["runtime_quantization"] = result.runtime_quantization
    if result.served is not None:
        made["served"] = result.served.model_dump(mode="json", exclude={"host"})
    if result.engine is not None:
        made["engine"] = result.engine.model_dump(mode="json")
    return _digest(made)


def eval_command(
    model: str, revision: str | None = None, *, settings: str | None = None, path: str | None = None
) -> str:
    """The shell command that makes a baseline.

    Args:
        settings: The settings file, if one is named.
        path: Where the baseline goes; left out, a name after the model's in baselines/.
    """
    source = f"{model}@{revision}" if revision else model
    name = path or f"{DIRECTORY}/{Path(model).name.lower() or 'baseline'}.json"
    parts = ["gate", "eval", source, *(["--settings", settings] if settings else []), "-o", name]
    return shlex.join(parts)


def load(path: Path, command: str | None = None) -> EvalResult:
    """Read a stored baseline.

    Args:
        command: What makes it; left out, the general form.

    Raises:
        BaselineMissingError: There is no such file.
        BaselineError: It is a shard of a run.
        GateError: It is unreadable, newer than this quant-gate, or something else.
    """
    if not path.is_file():
        made = command or f"gate eval REFERENCE -o {shlex.quote(str(path))}"
        raise BaselineMissingError(f"there is no baseline {path}", f"Make it: {made}")
    stored = records.read(path, EvalResult)
    require_whole(stored, path)
    return stored


def require_whole(result: EvalResult, path: Path) -> None:
    """Refuse a part of a run where all of it is meant.

    Raises:
        BaselineError: Saying which part it is.
    """
    if result.shard is not None:
        raise BaselineError(
            f"{path} is shard {result.shard} of a run",
            "Put all shards together: gate merge SHARD... -o RESULT",
        )


def find(
    directory: Path,
    conditions: Conditions,
    *,
    reference_digest: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    command: str | None = None,
    newest: bool = False,
) -> tuple[Path, EvalResult]:
    """The one stored baseline that belongs to the reference and is comparable.

    Args:
        directory: Whose *.json files are looked at.
        reference_digest: `weights_digest` of the reference, where it is at hand.
        model, revision: The reference's name, where it is on a hub. Without a reference every
            comparable baseline counts, those of the same config.json first.
        command: What makes the baseline.
        newest: Whether the newest will do where several fit.

    Raises:
        BaselineMissingError: None belongs to it.
        BaselineMismatchError: Those that do measured something else.
        BaselineError: Several fit.
    """
    stored, unreadable = _stored(directory)
    named = [(p, r) for p, r in stored if _belongs(r, reference_digest, model, revision)]
    if not named:
        whose = f" of {model}" if model else " of this reference" if reference_digest else ""
        raise _none(directory, whose, unreadable, command)
    fitting = [(p, r) for p, r in named if not mismatches(r, conditions)]
    if not fitting:
        path, result = named[0]
        require_comparable(result, conditions, path, command)
    if not (reference_digest or model):
        same = [(p, r) for p, r in fitting if r.config_digest == conditions.config_digest]
        fitting = same or fitting
    if newest:
        fitting = sorted(fitting, key=lambda found: found[1].date)[-1:]
    if len(fitting) > 1:
        names = ", ".join(str(path) for path, _ in fitting)
        raise BaselineError(
            f"several baselines fit: {names}", f"Name one: --baseline {fitting[0][0]}"
        )
    return fitting[0]


def _none(
    directory: Path, whose: str, unreadable: Sequence[str], command: str | None
) -> BaselineMissingError:
    """The error that there is no baseline, and the command that makes one."""
    many = len(unreadable)
    also = f"; {many} cannot be read, the first because {unreadable[0]}" if many else ""
    return BaselineMissingError(
        f"{directory} holds no baseline{whose}{also}",
        f"Make it: {command or f'gate eval REFERENCE -o {directory.name}/NAME.json'}",
    )


def require_young(
    made: str, longest: str | None, command: str, *, now: datetime | None = None
) -> None:
    """Refuse a baseline that is older than the settings allow.

    Args:
        made: When it was measured, as it says.
        longest: For example `90d`; None for any age.
        command: What makes it anew.

    Raises:
        BaselineError: It is too old, or says no date that can be.
    """
    if longest is None:
        return
    again = f"Measure it again: {command}"
    try:
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(made).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BaselineError(f"the baseline does not say when it was made: {made}", again) from error
    if age < -CLOCK_SKEW:
        raise BaselineError(f"the baseline was made at {made}, which is still to come", again)
    if age > duration.parse(longest, "age of a baseline"):
        raise BaselineError(
            f"the baseline is {age.days} days old, made at {made}; max_age is {longest}", again
        )


def require_comparable(
    baseline: EvalResult, conditions: Conditions, path: Path, command: str | None = None
) -> None:
    """Refuse a baseline that measured something else.

    Raises:
        BaselineMismatchError: With every difference.
    """
    differences = mismatches(baseline, conditions)
    if differences:
        made = command or eval_command(baseline.model, baseline.revision, path=str(path))
        hint = f"Make it again with these settings: {made}"
        if baseline.chat_template_sha is not None and conditions.template_sha is None:
            hint = (
                f"Copy the chat template of {baseline.model} into the checkpoint; where it shall "
                f"have none, make the baseline again with these settings: {made}"
            )
        raise BaselineMismatchError(f"{path} is not comparable: {'; '.join(differences)}", hint)


def mismatches(baseline: EvalResult, conditions: Conditions) -> tuple[str, ...]:
    """What makes two results incomparable, each in words with both values; empty if nothing."""
    return tuple(_mismatches(baseline, conditions))


def warnings(baseline: EvalResult, conditions: Conditions) -> tuple[str, ...]:
    """What may move scores a little without making two results incomparable."""
    found = []
    in_file = (baseline.format == GGUF, conditions.prompts_digests is not None)
    if in_file[0] != in_file[1]:
        found.append("one of both is described by a GGUF file's keys, the other by config.json")
    elif baseline.config_digest != conditions.config_digest:
        found.append("config.json differs from the baseline's beyond its quantization")
    if baseline.tokenizer_digest != conditions.tokenizer_digest and _same_tokens(
        baseline, conditions
    ):
        found.append(
            "the tokenizer is stored otherwise than the baseline's; its tokens are the same"
        )
    # Two models of a server never have the same name.
    for name in () if conditions.api is not None else ("device", "dtype"):
        ours = getattr(conditions, name)
        if ours is not None and ours != getattr(baseline, name):
            found.append(_difference(name, getattr(baseline, name), ours))
    for package, version in conditions.versions.items():
        theirs = baseline.versions.get(package)
        if theirs is not None and theirs != version:
            found.append(_difference(package, theirs, version))
    return tuple(found)


def _mismatches(baseline: EvalResult, conditions: Conditions) -> Iterator[str]:
    if not _same_backend(baseline, conditions):
        yield _difference("backend", baseline.backend, conditions.backend)
    # By api: chat the server's own template made the prompts.
    elif _api(baseline) != conditions.api:
        yield _difference("the server's api", _api(baseline), conditions.api)
    # A baseline that was quantized at load is that of another model.
    loaded, here = baseline.runtime_quantization, conditions.runtime_quantization
    if loaded is not None and loaded != here:
        yield _difference("runtime_quantization", loaded, here)
    # An unquantized baseline quantizes no activations, whatever the candidate does.
    if baseline.format is not None and baseline.activations != conditions.activations:
        yield _difference("activations", baseline.activations, conditions.activations)
    if not _same_tokens(baseline, conditions):
        yield _difference("tokenizer", baseline.tokenizer_digest, conditions.tokenizer_digest)
    asked = {setup.task: setup for setup in stated(baseline)}
    templated = any(
        setup.apply_chat_template or (setup.task in asked and asked[setup.task].apply_chat_template)
        for setup in conditions.setups
    )
    if templated and baseline.chat_template_sha != conditions.template_sha:
        yield _difference("chat template", baseline.chat_template_sha, conditions.template_sha)
    for setup in conditions.setups:
        theirs = asked.get(setup.task)
        if theirs is None:
            yield f"it has no task {setup.task}"
        elif any(found.early_stop for found in baseline.tasks if found.task == setup.task):
            yield f"task {setup.task} was stopped early"
        else:
            yield from _setup_differences(theirs, setup)
    for name, digest in conditions.tokens_digests.items():
        text = baseline.perplexity(name)
        if text is None:
            if name not in conditions.optional:
                yield f"it has no perplexity on {name}"
        elif text.early_stop is not None:
            yield f"perplexity on {name} was stopped early"
        elif text.tokens_digest != digest:
            yield _difference(f"tokens of {name}", text.tokens_digest, digest)


def stated(result: EvalResult) -> tuple[TaskSetup, ...]:
    """How the tasks were asked; what is done with think blocks is said by older results, too.

    Those scored every answer as it was; where none begins with a block, stripping does the same.
    """

    def think(setup: TaskSetup) -> str | None:
        if setup.think is not None or setup.output_type != "generate_until":
            return setup.think
        written = result.answers.get(setup.task, ())
        return "keep" if any(split(answer.text)[1] for answer in written) else "strip"

    return tuple(setup.model_copy(update={"think": think(setup)}) for setup in result.setups)


def _same_backend(baseline: EvalResult, conditions: Conditions) -> bool:
    """Whether what differs between two results is the model and not who ran it."""
    backends = {baseline.backend, conditions.backend}
    plain = baseline.format is None and baseline.runtime_quantization is None
    # `replay` repeats another backend's answers; without quantization `native` is `hf`.
    return len(backends) == 1 or "replay" in backends or (plain and backends == {"hf", "native"})


def _same_tokens(baseline: EvalResult, conditions: Conditions) -> bool:
    """Whether both tokenizers do the same: by their files, or by what a GGUF file's makes of tasks.

    Texts are compared by their tokens in any case.
    """
    if baseline.tokenizer_digest == conditions.tokenizer_digest:
        return True
    ours, theirs = conditions.prompts_digests, prompts_digests(baseline.prompting)
    return ours is not None and all(theirs.get(task) == ours[task] for task in ours)


def prompts_digests(prompting: Prompting | None) -> Mapping[str, str]:
    """By task, what a tokenizer makes of its prompts; empty where nothing is asked."""
    return prompting.tokens_digests if prompting else {}


def _api(result: EvalResult) -> str | None:
    return result.served.api if result.served else None


def _setup_differences(baseline: TaskSetup, candidate: TaskSetup) -> Iterator[str]:
    for name in TaskSetup.model_fields:
        theirs, ours = getattr(baseline, name), getattr(candidate, name)
        # The task hash covers every document: a file that was only written anew is the same.
        if name == "documents" and baseline.task_hash == candidate.task_hash:
            continue
        if name == "think" and None in (theirs, ours):
            continue
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for key in sorted(theirs.keys() | ours.keys()):
                if theirs.get(key) != ours.get(key):
                    label = f"{candidate.task} {name}.{key}"
                    yield _difference(label, theirs.get(key), ours.get(key))
        elif theirs != ours:
            yield _difference(f"{candidate.task} {name}", theirs, ours)


def _difference(name: str, baseline: object, here: object) -> str:
    return f"{name} is {_short(baseline)} in the baseline and {_short(here)} here"


def _short(value: object) -> str:
    """A value as text, digests by their first twelve digits."""
    if value is None:
        return "none"
    text = str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_digest else text if len(text) <= 80 else f"{text[:77]}..."


def _stored(directory: Path) -> tuple[list[tuple[Path, EvalResult]], list[str]]:
    """Every baseline of a directory, and why the other JSON files are none."""
    stored, unreadable = [], []
    for path in sorted(directory.glob("*.json")):
        try:
            stored.append((path, load(path)))
        except GateError as error:
            unreadable.append(error.message)
    return stored, unreadable


def _belongs(
    result: EvalResult, digest: str | None, model: str | None, revision: str | None
) -> bool:
    if digest is not None:
        return result.weights_digest == digest
    if model is None:
        return True
    # The settings may give the commit's first digits.
    same_revision = revision is None or (result.revision or "").startswith(revision)
    return result.model == model and same_revision


def _keys(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    """A GGUF file's keys that begin so; of long arrays, SHA-256 of their bytes."""
    file, store = checkpoint.whole_file, checkpoint.store
    assert file is not None, "only such files have keys"
    return {
        key: hashlib.sha256(store.read(file, value.begin, value.end)).hexdigest()
        if isinstance(value, ggml.LongArray)
        else value
        for key, value in checkpoint.metadata.items()
        if key.startswith(prefix)
    }


def _without_export(value: Any) -> Any:
    """A configuration without what an export changes, private keys and nulls, at every depth."""
    if isinstance(value, Mapping):
        return {
            key: _without_export(item)
            for key, item in value.items()
            if key not in CONFIG_IGNORED and not key.startswith("_") and item is not None
        }
    return [_without_export(item) for item in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _text(checkpoint: Checkpoint, name: str) -> str | None:
    """A small file of the checkpoint; None where there is none or it leads out.

    Raises:
        CheckpointError: It cannot be read, or is too large to be what its name says.
    """
    path = checkpoint.path / name
    if not path.is_file() or escapes(checkpoint.path, name):
        return None
    try:
        if path.stat().st_size > CONFIG_MAX_BYTES:
            raise CheckpointError(f"{path} is larger than any tokenizer", "Export it again.")
        # A file that is no text (tokenizer.model) keeps every byte, too.
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "Export it again.") from error


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
