"""Rule kv-scale-partial."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import ClassVar

from gate.records import Finding
from gate.rule import KV_SCALES, Evidence, Rule

BOTH = "kv_scale"
MOST_PARTS = 4
"""Of a layer that cache keys: attention, and cross attention beside it."""
ALGORITHMS = frozenset({"FP8", "INT8", "NVFP4", "NVFP4_AFFINE"})


class KvScalePartial(Rule):
    """The KV cache's scales are stored for some attention layers only.

    Flags:
        An attention layer without k_scale or v_scale where others of the same make have them; keys'
        scales without any values', or the reverse. Where a quantized KV cache is declared and no
        scale at all is stored, that is a note: recipes that cast store none.
    Why:
        Runtimes take 1.0 for a missing scale: the layer's cache overflows, or loses its small
        values.
    Repair:
        Calibrate the KV cache and export again.
    Source:
        https://github.com/NVIDIA-NeMo/RL/pull/3615
        and https://github.com/NVIDIA/Model-Optimizer/issues/20
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for each kind of scale that is missing somewhere, or one note."""
        checkpoint, inventory = evidence.checkpoint, evidence.inventory
        scales = [name for name in checkpoint.tensors if name.endswith(KV_SCALES)]
        if not scales:
            yield from self._undeclared(evidence)
            return
        if inventory.decoder is None or checkpoint.broken_files:
            return
        stored: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for name in scales:
            rest = name.removeprefix(f"{inventory.decoder}.")
            number, _, below = rest.partition(".")
            if rest != name and number.isdecimal():
                for kind in ("k_scale", "v_scale") if below.endswith(BOTH) else (below[-7:],):
                    stored[below.partition(".")[0]][kind].add(int(number[:9]))
        shared = evidence.architecture.number("num_kv_shared_layers") or 0
        own = {
            index: modules
            for index, modules in inventory.layers.items()
            if index < (evidence.architecture.layers or len(inventory.layers)) - shared
        }
        for part, kinds in islice(stored.items(), MOST_PARTS):
            yield from self._partial(own, part, kinds)

    def _partial(
        self, layers: Mapping[int, set[str]], part: str, kinds: Mapping[str, set[int]]
    ) -> Iterator[Finding]:
        """Attention layers, told by what is stored below `part`, that lack a scale."""
        make = {
            index: frozenset(name for name in modules if name.startswith(f"{part}."))
            for index, modules in layers.items()
        }
        scaled = {make[index] for found in kinds.values() for index in found if index in make}
        meant = {index for index, kind in make.items() if kind in scaled}
        for kind in ("k_scale", "v_scale"):
            lacking = sorted(meant - kinds.get(kind, set()))
            if lacking and self._is_meant(kind, kinds, part, scaled):
                names = ", ".join(str(index) for index in lacking[:5])
                more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
                yield self.finding(
                    f"layers {names}{more} have no {kind}; {len(meant):,} attention layers of the "
                    "same make quantize their cache",
                    "Calibrate the KV cache, and export again.",
                )

    def _is_meant(
        self, kind: str, kinds: Mapping[str, set[int]], part: str, scaled: set[frozenset[str]]
    ) -> bool:
        """Whether a layer has such a scale: latent attention caches one tensor only."""
        both = {f"{part}.k_proj", f"{part}.v_proj"}
        return bool(kinds.get(kind)) or any(both <= modules for modules in scaled)

    def _undeclared(self, evidence: Evidence) -> Iterator[Finding]:
        declared = evidence.declarations
        algo = next((d.kv_cache_quant_algo for d in declared if d.kv_cache_quant_algo), None)
        if algo and algo.upper() in ALGORITHMS and evidence.checkpoint.tensors:
            yield self.finding(
                f"a KV cache in {algo} is declared and no scale of it is stored: runtimes take 1.0",
                "Nothing, if the recipe casts; else calibrate the KV cache, and export again.",
                severity="note",
            )
