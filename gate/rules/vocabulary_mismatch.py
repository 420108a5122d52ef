"""Rule vocabulary-mismatch."""

from collections.abc import Iterator, Mapping, Sized
from typing import Any

from gate import ggml
from gate.records import Finding
from gate.rule import Evidence, Rule

TOKENS = "tokenizer.ggml.tokens"
PER_TOKEN = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
MATRICES = ("token_embd.weight", "output.weight")
FIX = "Convert the model again, with the tokenizer that belongs to it."


class VocabularyMismatch(Rule):
    """A GGUF file's vocabulary does not fit its weights or its special tokens.

    Flags:
        Another number of tokens than of rows in token_embd or output, of token types or scores;
        an id of a special token that is none of the vocabulary's.
    Why:
        llama.cpp refuses such shapes; an id out of range ends in a crash or in text without end.
    Repair:
        Convert the model again: convert_hf_to_gguf.py pads the tokens to the embedding's rows.
    Source:
        https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
    """

    formats = frozenset({"gguf"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a number that does not fit."""
        checkpoint = evidence.checkpoint
        metadata = checkpoint.metadata
        tokens = metadata.get(TOKENS)
        if not ggml.is_model(metadata) or not isinstance(tokens, Sized) or isinstance(tokens, str):
            return
        count = len(tokens)
        file = next(iter(checkpoint.weight_files), None)
        for name in MATRICES:
            info = checkpoint.tensors.get(name)
            if info is not None and len(info.shape) == 2 and info.shape[0] != count:
                yield self.finding(
                    f"{name} has {info.shape[0]:,} rows for {count:,} tokens",
                    FIX,
                    tensor=name,
                    file=info.file,
                )
        for key in PER_TOKEN:
            values = metadata.get(key)
            if isinstance(values, Sized) and len(values) != count:
                yield self.finding(
                    f"{key} has {len(values):,} entries for {count:,} tokens", FIX, file=file
                )
        for key, number in _special(metadata).items():
            if not number < count:
                yield self.finding(f"{key} is {number:,}, of {count:,} tokens", FIX, file=file)


def _special(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Key to the id of a special token; -1, and all bits set, stand for none."""
    return {
        key: value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
        and key.endswith("_token_id")
        and type(value) is int
        and 0 <= value < 0xFFFFFFFF
    }
