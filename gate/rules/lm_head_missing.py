"""Rule lm-head-missing."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Rule

GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""Ends of the names of architectures that have a language model's head."""


class LmHeadMissing(Rule):
    """The head is not stored, and is not the embedding either.

    Flags:
        tie_word_embeddings is false in config.json, the architecture is one that generates text,
        and no lm_head (or output, embed_out) is stored.
    Why:
        Runtimes stop, or turn hidden states into logits with a random matrix.
    Repair:
        Export again; if the head is the embedding, set tie_word_embeddings to true.
    Source:
        https://github.com/sgl-project/sglang/issues/2935
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint, inventory = evidence.checkpoint, evidence.inventory
        names = checkpoint.config.get("architectures")
        first = names[0] if isinstance(names, list) and names else ""
        generative = isinstance(first, str) and first.endswith(GENERATIVE)
        known = generative and inventory.embedding is not None
        if not known or inventory.heads or checkpoint.broken_files:
            return
        if evidence.architecture.tied is False:
            yield self.finding(
                f"{first} has a head of its own (tie_word_embeddings is false), and no lm_head "
                "is stored",
                "Export again, or set tie_word_embeddings to true if the embedding is meant.",
                tensor="lm_head.weight",
                file="config.json",
            )
