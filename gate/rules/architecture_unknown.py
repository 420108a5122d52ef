"""Rule architecture-unknown."""

from collections.abc import Iterator

from gate import ggml
from gate.records import Finding
from gate.rule import Evidence, Rule


class ArchitectureUnknown(Rule):
    """A GGUF file's architecture is none that the package gguf knows.

    Flags:
        A model without general.architecture, which is an error, or with a name that is not in the
        installed gguf's list, which may be older than the model.
    Why:
        llama.cpp builds the model by this name: without it, or with another, it loads nothing.
    Repair:
        Convert the model again; where it is newer than the package, update gguf.
    Source:
        https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#required
    """

    severity = "warning"
    formats = frozenset({"gguf"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        if checkpoint.broken_files or not ggml.is_model(checkpoint.metadata):
            return
        file = next(iter(checkpoint.weight_files), None)
        name = checkpoint.metadata.get("general.architecture")
        if not isinstance(name, str) or not name:
            yield self.finding(
                "general.architecture is missing",
                "Convert the model again.",
                file=file,
                severity="error",
            )
        elif name not in ggml.architectures():
            yield self.finding(
                f"general.architecture is {name!r}, which the installed gguf does not know",
                "Update gguf if the model is new; else convert it again.",
                file=file,
            )
