"""Rule float16-checkpoint."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule


class Float16Checkpoint(Rule):
    """A model with bfloat16 weights is to be computed in float16.

    Flags:
        config.json states dtype float16, and tensors are stored as BF16. Whether a model that is
        stored in float16 throughout was a bfloat16 one, only the reference tells.
    Why:
        float16 ends at 65,504: activations of a model that was trained in bfloat16 overflow, and
        it answers `!!!!`.
    Repair:
        Set dtype to bfloat16, unless the kernels of this format take float16 only.
    Source:
        https://github.com/vllm-project/vllm/issues/14126
    """

    severity: ClassVar[Severity] = "warning"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        if checkpoint.container is not None and checkpoint.container.suffix == ".gguf":
            return  # the original's config.json beside it says nothing of the file
        stated = {**checkpoint.config, **checkpoint.text_config}
        for field in ("dtype", "torch_dtype"):
            if stated.get(field) != "float16":
                continue
            stored = [info for info in checkpoint.tensors.values() if info.dtype == "BF16"]
            if stored:
                yield self.finding(
                    f"config.json asks for float16, and {len(stored):,} tensors are stored as "
                    f"BF16, {stored[0].name} for one",
                    f"Set {field} in config.json to bfloat16.",
                    tensor=stored[0].name,
                    file="config.json",
                )
            return
