"""Rule vocab-rows."""

import json
import re
from collections.abc import Iterator

from gate.checkpoint import Checkpoint
from gate.quantization import FLOAT_DTYPES
from gate.records import Finding
from gate.rule import Evidence, Rule

ADDED_BYTES = 1 << 16
"""Of tokenizer.json that are looked at: its added tokens, which have the highest ids, come first
(Llama 3 has 256 of them, in 50 kB)."""


class VocabRows(Rule):
    """The embedding has fewer rows than there are tokens.

    Flags:
        vocab_size in config.json above the rows of the token embedding (error); a token added to
        tokenizer.json whose id is not below them (warning: a few public models list such tokens
        and never meet them). The vocabulary proper, megabytes of it, is not read. More rows than
        tokens are padding.
    Why:
        Runtimes allocate vocab_size rows and stop, or leave some unwritten; a token without a row
        reads another tensor's memory.
    Repair:
        Restore the config.json and tokenizer.json that belong to these weights.
    Source:
        https://huggingface.co/docs/transformers/main_classes/model
        (`resize_token_embeddings`)
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding for each of the two files."""
        checkpoint, vocabulary = evidence.checkpoint, evidence.architecture.vocabulary
        info = checkpoint.tensors.get(f"{evidence.inventory.embedding}.weight")
        if info is None or info.dtype not in FLOAT_DTYPES or len(info.shape) != 2:
            return
        rows = info.shape[0]
        if vocabulary and vocabulary > rows:
            yield self.finding(
                f"config.json says {vocabulary:,} tokens; {info.name} has {rows:,} rows",
                "Restore the config.json that belongs to these weights.",
                tensor=info.name,
                file="config.json",
            )
        highest = _highest_added(checkpoint)
        if highest is not None and highest >= rows:
            yield self.finding(
                f"tokenizer.json adds a token with id {highest:,}; {info.name} has {rows:,} rows",
                "Restore the tokenizer.json that belongs to these weights.",
                tensor=info.name,
                file="tokenizer.json",
                severity="warning",
            )


def _highest_added(checkpoint: Checkpoint) -> int | None:
    """The highest id among tokenizer.json's added tokens; None where they are not found."""
    if "tokenizer.json" not in checkpoint.files:
        return None
    try:
        start = str(checkpoint.store.read("tokenizer.json", 0, ADDED_BYTES), "utf-8", "replace")
        found = re.search(r'"added_tokens"\s*:\s*', start)
        added = json.JSONDecoder().raw_decode(start, found.end())[0] if found else None
    except (OSError, ValueError, RecursionError):
        return None
    entries = added if isinstance(added, list) else []
    ids = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return max((number for number in ids if type(number) is int), default=None)
