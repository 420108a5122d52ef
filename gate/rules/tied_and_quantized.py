"""Rule tied-and-quantized."""

from collections.abc import Iterator
from typing import ClassVar

from gate.patterns import Exclusions
from gate.quantization import MIXED
from gate.records import Finding, Severity
from gate.rule import Evidence, Rule


class TiedAndQuantized(Rule):
    """The head is the embedding, and the configuration quantizes the head.

    Flags:
        tie_word_embeddings is true, no head is stored, and lm_head is not excluded from the one
        algorithm that is declared for everything.
    Why:
        Runtimes then build a quantized head and hand it the embedding's high-precision weights:
        they stop with an error, or read them as codes.
    Repair:
        Add lm_head to exclude_modules and ignore, as ModelOpt does.
    Source:
        https://github.com/vllm-project/vllm/issues/45543
    """

    severity: ClassVar[Severity] = "note"
    formats: ClassVar[frozenset[str]] = frozenset({"modelopt"})
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        declared = evidence.declarations
        if not evidence.architecture.tied or not checkpoint.tensors or not declared:
            return
        algo = (declared[0].quant_algo or MIXED).upper()
        names = [name for found in declared for name in found.exclude_modules or ()]
        if "lm_head.weight" in checkpoint.tensors or algo == MIXED:
            return
        if "lm_head" not in Exclusions(names):
            yield self.finding(
                f"the head is the embedding (tie_word_embeddings), and lm_head is declared {algo}",
                "Add lm_head to exclude_modules and ignore.",
                file=declared[0].file,
            )
