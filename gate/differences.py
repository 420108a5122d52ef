"""In what a checkpoint's configuration and tokenizer differ from the unquantized model's."""

import json
from collections.abc import Iterator
from typing import Any

from gate.architecture import architecture
from gate.checkpoint import Checkpoint
from gate.records import Difference

TOKENIZER_MAX_BYTES = 64 * 2**20
"""A larger tokenizer is not compared: the biggest public ones have 35 MB."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tekken.json")
DECODING_FIELDS = (
    "eos_token_id", "bos_token_id", "pad_token_id", "temperature", "top_p", "top_k", "do_sample",
    "repetition_penalty",
)  # fmt: skip
"""What generation_config.json says about how answers are drawn and where they end."""

ARCHITECTURE_FIELDS = (
    "model_type", "num_hidden_layers", "hidden_size", "intermediate_size",
    "num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta", "rope_scaling",
    "rope_parameters", "rms_norm_eps", "hidden_act", "sliding_window",
    "tie_word_embeddings", "num_experts", "num_local_experts", "num_experts_per_tok",
)  # fmt: skip
"""Fields of config.json with which the same weights make another model."""

VALUE_MAX_CHARS = 120


def differences(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    """Everything in which configuration and tokenizer differ from the unquantized model's."""
    yield from _architecture(checkpoint, original)
    yield from _generation(checkpoint, original)
    yield from _vocabulary(checkpoint, original)
    yield from _tokenizer(checkpoint, original)
    yield from _template(checkpoint, original)


def _architecture(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    here, there = checkpoint.text_config, original.text_config
    for field in ARCHITECTURE_FIELDS:
        values = there.get(field), here.get(field)
        if None not in values and values[0] != values[1]:
            yield _difference("architecture", field, *values)
    kinds = [config.get("dtype", config.get("torch_dtype")) for config in (there, here)]
    if None not in kinds and kinds[0] != kinds[1]:
        yield _difference("dtype", "dtype", *kinds)


def _generation(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    if original.generation_config is None:
        return
    if checkpoint.generation_config is None and checkpoint.whole_file is not None:
        return  # no runtime of such files reads it
    if checkpoint.generation_config is None:
        name = "generation_config.json"
        yield Difference(
            about="generation_config", name=name, reference="present", candidate="missing"
        )
        return
    for field in DECODING_FIELDS:
        values = [config.get(field) for config in (original.generation_config,
                                                   checkpoint.generation_config)]  # fmt: skip
        if values[0] != values[1]:
            yield _difference("generation_config", field, *values)


def _vocabulary(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    sizes = [architecture(opened).vocabulary for opened in (original, checkpoint)]
    if None not in sizes and sizes[0] != sizes[1]:
        yield _difference("vocabulary", "vocab_size", *sizes)


def _tokenizer(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    """Files that both have and that differ in content."""
    for name in TOKENIZER_FILES:
        here, there = (_file(opened, name) for opened in (checkpoint, original))
        if here is None or there is None or here == there:
            continue
        if name.endswith(".json"):
            try:
                if _tokens(json.loads(bytes(here))) == _tokens(json.loads(bytes(there))):
                    continue
            except (ValueError, RecursionError):
                pass  # a file that is no JSON differs
        yield Difference(
            about="tokenizer",
            name=name,
            reference=f"{len(there):,} bytes",
            candidate=f"{len(here):,} bytes",
        )


def _tokens(value: Any) -> Any:
    """A tokenizer without what a call leaves behind in it: truncation and padding."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key not in {"truncation", "padding"}}
    return value


def _template(checkpoint: Checkpoint, original: Checkpoint) -> Iterator[Difference]:
    there, here = _chat_template(original), _chat_template(checkpoint)
    if there is not None and here != there:
        found = "missing" if here is None else f"{len(here):,} characters"
        yield Difference(
            about="chat_template",
            name="chat template",
            reference=f"{len(there):,} characters",
            candidate=found,
        )


def _chat_template(checkpoint: Checkpoint) -> str | None:
    """chat_template.jinja, or tokenizer_config.json's own; a GGUF file's key."""
    if checkpoint.whole_file is not None:
        stored = checkpoint.metadata.get("tokenizer.chat_template")
        return stored.strip() if isinstance(stored, str) else None
    raw = _file(checkpoint, "chat_template.jinja")
    if raw is not None:
        return bytes(raw).decode(errors="replace").strip()
    raw = _file(checkpoint, "tokenizer_config.json")
    try:
        config = json.loads(bytes(raw)) if raw is not None else {}
    except (ValueError, RecursionError):
        return None
    template = config.get("chat_template") if isinstance(config, dict) else None
    return template.strip() if isinstance(template, str) else None


def _file(checkpoint: Checkpoint, name: str) -> memoryview | None:
    if name not in checkpoint.files:
        return None
    try:
        if checkpoint.store.size(name) > TOKENIZER_MAX_BYTES:
            return None
        return checkpoint.store.read(name)
    except OSError:
        return None


def _difference(about: str, name: str, reference: Any, candidate: Any) -> Difference:
    return Difference(
        about=about,
        name=name,
        reference=str(reference)[:VALUE_MAX_CHARS],
        candidate=str(candidate)[:VALUE_MAX_CHARS],
    )
