"""Rule hardware-unsupported-algo."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Needs, Rule


class HardwareUnsupportedAlgo(Rule):
    """The runtime cannot compute this algorithm on the GPU.

    Flags:
        An algorithm that the runtime of `--runtime` loads on other GPUs, but not on that of
        `--gpu`. A GPU without matrix units for the format is no defect where the runtime decodes
        the weights instead: the report says so.
    Why:
        The server ends with an error after the weights have been fetched.
    Repair:
        Name a GPU or a runtime that has a kernel for it, or export with another algorithm.
    Source:
        https://nvidia.github.io/TensorRT-LLM/features/quantization.html and
        its like: the table of support (gate/data/support.yaml) has an address for each of its
        cells.
    """

    needs: ClassVar[Needs] = "target"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding an algorithm."""
        fit = evidence.fit
        for entry in fit.executions if fit else ():
            if fit and entry.blocked_by == "hardware":
                yield self.finding(
                    f"{fit.runtime} does not load {entry.algorithm} on {fit.device}: "
                    f"{entry.reason} ({entry.source})",
                    "Name a GPU or a runtime with a kernel for it, or export another algorithm.",
                )
