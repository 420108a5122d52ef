"""Rule tensor-not-indexed."""

from gate.rule import OpeningRule


class TensorNotIndexed(OpeningRule):
    """A shard holds a tensor that the index does not name.

    Flags:
        A tensor of an indexed shard is absent from weight_map.
    Why:
        Loaders that follow the index never load it.
    Repair:
        Rebuild the index from the shards' headers.
    Source:
        https://github.com/Blaizzy/mlx-vlm/pull/1827
    """
