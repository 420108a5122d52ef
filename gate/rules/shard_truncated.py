"""Rule shard-truncated."""

from gate.rule import OpeningRule


class ShardTruncated(OpeningRule):
    """A weight file's size differs from what its header says.

    Flags:
        Header and data together are shorter or longer than the file.
    Why:
        An interrupted upload or download; readers raise MetadataIncompleteBuffer.
    Repair:
        Upload or download the file again.
    Source:
        https://github.com/PaddlePaddle/PaddleFormers/issues/2435
    """
