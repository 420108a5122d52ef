"""Rule split-incomplete."""

from collections.abc import Iterator

from gate.records import Finding
from gate.rule import Evidence, OpeningRule


class SplitIncomplete(OpeningRule):
    """The files of a split GGUF model do not fit together.

    Flags:
        A file whose split.no or split.count differs from the numbers in its name, or whose name
        has none; files that together hold another number of tensors than split.tensors.count.
    Why:
        llama.cpp finds the other files by name, refuses them, or misses tensors.
    Repair:
        Download all files of one upload, and keep their names.
    Source:
        https://github.com/ggml-org/llama.cpp/blob/master/tools/gguf-split/README.md
    """

    formats = frozenset({"gguf"})
    complete = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """What opening saw, and the number of tensors."""
        yield from super().check_checkpoint(evidence)
        checkpoint = evidence.checkpoint
        count = checkpoint.metadata.get("split.tensors.count")
        if type(count) is int and count != len(checkpoint.tensors) and not checkpoint.problems:
            yield self.finding(
                f"the {len(checkpoint.weight_files)} files hold {len(checkpoint.tensors):,} "
                f"tensors; split.tensors.count says {count:,}",
                "Download all files of one upload again.",
                file=next(iter(checkpoint.weight_files), None),
            )
