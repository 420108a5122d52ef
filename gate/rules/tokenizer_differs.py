"""Rule tokenizer-differs."""

from typing import ClassVar

from gate.records import Severity
from gate.rule import DifferenceRule


class TokenizerDiffers(DifferenceRule):
    """The tokenizer is not the reference's.

    Flags:
        tokenizer.json, tokenizer.model, vocab.json, merges.txt or tekken.json is in both, unequal;
        truncation and padding, which a call leaves behind in tokenizer.json, do not count.
    Why:
        Other token ids reach the same embeddings.
    Repair:
        Save the reference's tokenizer into the directory.
    Source:
        https://github.com/ggml-org/llama.cpp/issues/7939
    """

    severity: ClassVar[Severity] = "warning"
    about: ClassVar[str] = "tokenizer"
    fix: ClassVar[str] = "Run: AutoTokenizer.from_pretrained(reference).save_pretrained(directory)"
