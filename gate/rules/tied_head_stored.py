"""Rule tied-head-stored."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule


class TiedHeadStored(Rule):
    """A head is stored, and config.json says that the embedding is the head.

    Flags:
        tie_word_embeddings is true and lm_head is stored.
    Why:
        Some runtimes skip the stored head, some use it, some stop at the second name: if the two
        differ, so do the answers.
    Repair:
        Remove lm_head from the weights, or set tie_word_embeddings to false if it is another
        matrix than the embedding.
    Source:
        https://github.com/vllm-project/llm-compressor/pull/2835
    """

    severity: ClassVar[Severity] = "warning"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        inventory = evidence.inventory
        if not evidence.architecture.tied or not inventory.layers:
            return
        own = {f"{root}lm_head" for root in inventory.roots}
        for head in sorted(own.intersection(inventory.heads)):
            yield self.finding(
                f"{head} is stored, and tie_word_embeddings says that the embedding is the head",
                "Remove the head from the weights, or set tie_word_embeddings to false.",
                tensor=f"{head}.weight",
            )
