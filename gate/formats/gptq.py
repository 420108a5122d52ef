"""GPTQ: integers packed along the inputs (v1, v2, per-module `dynamic`), and AutoRound's like it.

Source: https://github.com/ModelCloud/GPTQModel and https://github.com/AutoGPTQ/AutoGPTQ
(`qlinear_cuda.py`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gate.formats import packed_decoders
from gate.formats.packed import AUTO_ROUND, HALVES, WORDS, Packed
from gate.formats.packed_config import Packing
from gate.quantization import QuantizedLayer, Role, TensorSpec

LAYOUTS = {"": "gptq", "gptq": "gptq", "gptq_v1": "gptq", "gptq_v2": "gptq_v2"}
"""What a configuration calls the two layouts: v2 stores a zero as it is, v1 less one."""

AUTO_ROUND_LAYOUTS = {
    "auto": "gptq",
    "auto_round:gptq": "gptq",
    "auto_round:auto_gptq": "gptq",
    "auto_round": "auto-round",
    "auto_round:gptqmodel": "auto-round",
}
"""AutoRound's `packing_format` to the layout; its own stores a zero as it is.

Source: https://github.com/intel/auto-round (`auto_round/inference/backend.py`, `GPTQ_FORMAT`,
`GPTQ_FORMAT_NO_ZP`).
"""


class GPTQ(Packed):
    """The format of checkpoints with a GPTQ declaration."""

    name = "gptq"
    side_file = "quantize_config.json"

    def declared_layout(self, config: Mapping[str, Any], method: object) -> str | None:
        """v1 unless something else is stated."""
        if str(method) in AUTO_ROUND:
            packing = str(config.get("packing_format", "auto_round:auto_gptq"))
            if "awq" in packing or config.get("data_type", "int") != "int":
                return None
            return AUTO_ROUND_LAYOUTS.get(packing, packing)
        if method != self.name:
            return None
        if config.get("is_marlin_format") is True:
            return "marlin"
        stated = config.get("checkpoint_format") or config.get("format") or ""
        return LAYOUTS.get(str(stated).lower(), str(stated))

    def decode(self, layer: QuantizedLayer, xp: Any) -> Any:
        """See `Packed.decode`: the first layout alone takes one off a zero."""
        return packed_decoders.gptq(layer, 1 if layer.algo.startswith("GPTQ ") else 0, xp)

    def describe(
        self, packing: Packing, weight: tuple[int, int]
    ) -> tuple[tuple[int, int], Mapping[Role, TensorSpec]]:
        """See `Packed.describe`: 32 inputs take `bits` words of a column."""
        return _describe(packing, weight)


@lru_cache(maxsize=4096)
def _describe(
    packing: Packing, weight: tuple[int, int]
) -> tuple[tuple[int, int], Mapping[Role, TensorSpec]]:
    assert packing.bits, "a described layout has a width"
    words, columns = weight
    rows = words * 32 // packing.bits
    groups = -(-rows // packing.group_size) if packing.group_size else 1
    zeros = -(-columns * packing.bits // 32)
    expected = {
        Role.WEIGHT: TensorSpec(WORDS, stored_as="qweight"),
        Role.WEIGHT_ZERO_POINT: TensorSpec(WORDS, ((groups, zeros),), "qzeros"),
        Role.WEIGHT_SCALE: TensorSpec(HALVES, ((groups, columns),), "scales"),
        Role.WEIGHT_G_IDX: TensorSpec(WORDS, ((rows,),), "g_idx", optional=not packing.desc_act),
    }
    return (columns, rows), expected
