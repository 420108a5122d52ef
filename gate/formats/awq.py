"""AWQ: integers of four bits packed along the outputs (GEMM), and AutoRound's like it.

Source: https://github.com/casper-hansen/AutoAWQ (`awq/modules/linear/gemm.py`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gate.formats import packed_decoders
from gate.formats.packed import AUTO_ROUND, HALVES, WORDS, Packed
from gate.formats.packed_config import Packing
from gate.quantization import QuantizedLayer, Role, TensorSpec


class AWQ(Packed):
    """The format of checkpoints with an AWQ declaration."""

    name = "awq"
    side_file = "quant_config.json"

    def declared_layout(self, config: Mapping[str, Any], method: object) -> str | None:
        """GEMM unless something else is stated."""
        if str(method) in AUTO_ROUND:
            return "gemm" if "awq" in str(config.get("packing_format")) else None
        if method != self.name:
            return None
        stated = str(config.get("version") or config.get("format") or "gemm").lower()
        return stated if stated == "gemm" else f"awq {stated}"

    def decode(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Packed.decode`."""
        return packed_decoders.awq(layer, xp)

    def describe(
        self, packing: Packing, weight: tuple[int, int]
    ) -> tuple[tuple[int, int], Mapping[Role, TensorSpec]]:
        """See `Packed.describe`: eight outputs share a word."""
        return _describe(packing, weight)


@lru_cache(maxsize=4096)
def _describe(
    packing: Packing, weight: tuple[int, int]
) -> tuple[tuple[int, int], Mapping[Role, TensorSpec]]:
    rows, words = weight
    groups, rest = divmod(rows, packing.group_size or rows or 1)
    expected = {
        Role.WEIGHT: TensorSpec(WORDS, stored_as="qweight"),
        Role.WEIGHT_ZERO_POINT: TensorSpec(WORDS, () if rest else ((groups, words),), "qzeros"),
        Role.WEIGHT_SCALE: TensorSpec(HALVES, () if rest else ((groups, 8 * words),), "scales"),
    }
    return (8 * words, rows), expected
