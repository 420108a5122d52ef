"""Rule indexed-tensor-absent."""

from gate.rule import OpeningRule


class IndexedTensorAbsent(OpeningRule):
    """The index names a tensor that its shard does not hold.

    Flags:
        An entry of weight_map whose shard lacks that tensor.
    Why:
        The tensor stays uninitialised or loading fails: a stale index after requantizing.
    Repair:
        Rebuild the index from the shards' headers.
    Source:
        https://github.com/huggingface/huggingface_hub/issues/4725
    """
