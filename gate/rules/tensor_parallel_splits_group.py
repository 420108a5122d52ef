"""Rule tensor-parallel-splits-group."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Needs, Rule


class TensorParallelSplitsGroup(Rule):
    """Tensor parallelism cuts through a quantization group, a block, a packed word or a head.

    Flags:
        With `--tp N`: a layer whose part for one device is no whole number of groups (o_proj,
        down_proj), of block rows (q_proj, gate_proj and their kind) or of packed words; heads
        that N devices cannot share. Layers that every device holds whole are not looked at, and
        runtimes that divide the list of layers instead cut through nothing.
    Why:
        A scale belongs to one whole group, so runtimes refuse to load what they would have to cut.
    Repair:
        Use fewer devices, or expert parallelism, or quantize with a smaller group.
    Source:
        https://github.com/vllm-project/vllm/issues/49949
        and https://github.com/sgl-project/sglang/issues/3345
    """

    needs: ClassVar[Needs] = "target"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a kind of layer."""
        for found in evidence.fit.undivided if evidence.fit else ():
            more = f" ({found.count:,} layers)" if found.count > 1 else ""
            yield self.finding(
                f"{found.reason}{more}",
                "Use fewer devices for each layer, or quantize with a smaller group.",
                tensor=found.tensor,
            )
