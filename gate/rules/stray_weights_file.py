"""Rule stray-weights-file."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

OWN_LAYOUT = "consolidated"
"""Mistral ships its own layout of the same weights under this name."""


class StrayWeightsFile(Rule):
    """A weight file belongs to no part of the checkpoint.

    Flags:
        A weight file beside the index that the index does not name, or beside model.safetensors.
        Mistral's consolidated.safetensors is none: another runtime reads it.
    Why:
        Some runtimes load every weight file of the directory, and the last tensor of a name wins:
        leftovers of an earlier export mix with this one. At best they are downloaded for nothing.
    Repair:
        Delete the file, or rebuild the index if it belongs to the model.
    Source:
        https://github.com/vllm-project/vllm
        (`filter_duplicate_safetensors_files` in model_executor/model_loader)
    """

    severity: ClassVar[Severity] = "note"
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a file."""
        checkpoint = evidence.checkpoint
        if checkpoint.container is None or checkpoint.container.index_suffix is None:
            return  # each GGUF file is a model by itself
        suffix, read = checkpoint.container.suffix, set(checkpoint.weight_files)
        for name in checkpoint.files:
            if name.endswith(suffix) and name not in read and not name.startswith(OWN_LAYOUT):
                beside = "the index does not name it"
                if checkpoint.weight_map is None:
                    beside = f"model{suffix} stands beside it"
                yield self.finding(
                    f"{name} was not judged: {beside}",
                    f"Delete {name}, or rebuild the index if it belongs to the model.",
                    file=name,
                )
