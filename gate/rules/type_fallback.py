"""Rule type-fallback."""

from collections import Counter
from collections.abc import Iterator

from gate import ggml
from gate.checkpoint import TensorInfo
from gate.records import Finding
from gate.rule import Evidence, Rule

GUESSED = 1024
"""Added to general.file_type where the type was not stated; it says nothing then."""
OUTSIDE = ("token_embd.weight", "output.weight")
"""Matrices that every mixture stores in another type."""


class TypeFallback(Rule):
    """A GGUF file is mostly of another type than its label.

    Flags:
        Most of the weights between embedding and head have another type than the one that
        general.file_type is named after.
    Why:
        K-quants need rows of a multiple of 256: for others llama-quantize takes larger types, so
        that a "Q4_K_M" is mostly q5_0 and q8_0, larger and slower than its name.
    Repair:
        Choose a type with blocks of 32 (Q4_0, Q5_0, IQ4_NL), or name the file after its content.
    Source:
        https://github.com/ggml-org/llama.cpp/issues/2143
        and https://github.com/ggml-org/llama.cpp/pull/28474
    """

    severity = "note"
    formats = frozenset({"gguf"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        number = checkpoint.metadata.get("general.file_type")
        label = ggml.file_type(number) if type(number) is int and number < GUESSED else None
        wanted = ggml.main_types(label) if label else frozenset()
        matrices = [
            info
            for info in checkpoint.tensors.values()
            if len(info.shape) > 1 and info.name not in OUTSIDE
        ]
        if not wanted or not matrices or not ggml.is_model(checkpoint.metadata):
            return
        census = Counter[str]()
        for info in matrices:
            census[info.dtype] += info.numel
        if census.most_common(1)[0][0] in wanted:
            return
        total = sum(census.values())
        shares = ", ".join(f"{kind} {100 * (n / total):.0f} %" for kind, n in census.most_common(4))
        yield self.finding(
            f"the file is labelled {label}; its weights are {shares}{_reason(matrices, wanted)}",
            "Choose a type whose blocks divide the rows, or name the file after its content.",
            file=next(iter(checkpoint.weight_files), None),
        )


def _reason(matrices: list[TensorInfo], wanted: frozenset[str]) -> str:
    """The rows that a block of the wanted type does not divide."""
    blocks = [block.weights for kind in wanted if (block := ggml.block(kind))]
    undivided = sum(1 for info in matrices if all(info.shape[-1] % size for size in blocks))
    if not undivided:
        return ""
    return f" (rows of {undivided} of {len(matrices)} matrices are no multiple of {min(blocks)})"
