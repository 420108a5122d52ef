"""Rule expert-missing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from typing import ClassVar

from gate.inventory import absent
from gate.records import Finding
from gate.rule import Evidence, Rule


class ExpertMissing(Rule):
    """An expert, or a layer of it, is not stored.

    Flags:
        In each layer with numbered experts: a number below the count of config.json (num_experts,
        num_local_experts, n_routed_experts, moe_num_experts) that is not there, or one that lacks
        a linear layer which the others have. Without a count, gaps in the numbers.
    Why:
        Some exporters leave out experts that calibration never reached. Runtimes stop, or route
        tokens to memory that nobody wrote.
    Repair:
        Calibrate with data that reaches every expert, and export again.
    Source:
        https://github.com/ModelCloud/GPTQModel/pull/2321
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a decoder layer, or a linear layer of its experts."""
        # Here each layer states its own count.
        own = bool(evidence.checkpoint.text_config.get("block_configs"))
        if evidence.checkpoint.broken_files:
            return
        for parent, modules in evidence.inventory.experts.items():
            stored = 1 + max(max(numbers) for numbers in modules.values())
            count = stored if own else evidence.architecture.experts or stored
            yield from self._missing(parent, modules, count)

    def _missing(
        self, parent: str, modules: Mapping[str, Set[int]], count: int
    ) -> Iterator[Finding]:
        if all(len(numbers) >= count for numbers in modules.values()):
            return
        alike: dict[frozenset[int], list[str]] = defaultdict(list)
        for module, numbers in modules.items():
            alike[frozenset(numbers)].append(module)
        for numbers, names in alike.items():
            if missing := absent(numbers, count):
                whole = len(alike) == 1
                what = "" if whole else f"{', '.join(sorted(names)[:5])} of "
                yield self.finding(
                    f"{parent} has {count:,} experts; not stored: {what}{missing}",
                    "Calibrate with data that reaches every expert, and export again.",
                    tensor=parent,
                )
