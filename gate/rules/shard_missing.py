"""Rule shard-missing."""

from gate.rule import OpeningRule


class ShardMissing(OpeningRule):
    """A weight file that belongs to the checkpoint is not there.

    Flags:
        The index names a file that is absent, or a numbered series of shards has a gap.
    Why:
        Some runtimes start with uninitialised weights and answer nonsense: their check for missing
        weights is off for quantized models.
    Repair:
        Upload or download the missing file.
    Source:
        https://github.com/vllm-project/vllm/issues/34859
    """
