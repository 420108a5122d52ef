"""The tokenizer that a GGUF file describes by its keys."""

from pathlib import Path
from typing import Any

from gate.errors import CheckpointError

BEGINS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})
"""Kinds of byte-level vocabularies to which llama.cpp adds a BOS where no key says otherwise.

Source: https://github.com/ggml-org/llama.cpp (`llama-vocab.cpp`)."""


def load(path: Path, file: str) -> Any:
    """The tokenizer of a GGUF file as transformers builds it, with the file's own chat template.

    Of what splits a text before it is tokenized a file has but the name, and transformers does not
    know every name. A tokenizer.json beside the file says it all: where there is one, it is used.

    Args:
        path: The file's directory.
        file: The first of a series.

    Raises:
        CheckpointError: tokenizer.json has other tokens than the file.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        convert_gguf_tokenizer,
        get_gguf_tokenizer,
    )
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(path / file))
    architecture, described, options = get_gguf_tokenizer(str(path / file))
    beside = path / "tokenizer.json"
    if beside.is_file():
        backend = Tokenizer.from_file(str(beside))
        _require_same(backend, described["tokens"], beside, file)
    else:
        backend, _ = convert_gguf_tokenizer(architecture, described)
        begins = metadata["tokenizer.ggml.model"] == "llama"
        begins |= metadata.get("tokenizer.ggml.pre") in BEGINS
        options["add_bos_token"] = metadata.get("tokenizer.ggml.add_bos_token", begins)
        options["add_eos_token"] = metadata.get("tokenizer.ggml.add_eos_token", False)
    options["chat_template"] = metadata.get("tokenizer.chat_template")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def _require_same(backend: Any, tokens: list[str], beside: Path, file: str) -> None:
    """Every token of tokenizer.json has the same id in the file, which may have more of them."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    for token, index in vocabulary.items():
        if index >= len(tokens) or tokens[index] != token:
            stored = tokens[index] if index < len(tokens) else None
            raise CheckpointError(
                f"{beside} is not the tokenizer of {file}: token {index:,} is {token[:40]!r} there "
                f"and {stored[:40] if stored is not None else 'none'!r} here",
                f"Copy tokenizer.json of the model that {file} was made from, or remove it.",
            )
