"""Rule runtime-unsupported-algo."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Needs, Rule


class RuntimeUnsupportedAlgo(Rule):
    """The runtime does not load this kind of quantization.

    Flags:
        An algorithm, or the whole format, that the runtime of `--runtime` refuses on every GPU,
        or loads as something else than it is.
    Why:
        The server ends with an error, or, where the quantization is skipped, answers nonsense.
    Repair:
        Name another runtime, or export with an algorithm that this one has.
    Source:
        https://docs.vllm.ai/en/latest/features/quantization/ and its like for other runtimes: the
        table of support (gate/data/support.yaml) has an address for each of its cells.
    """

    needs: ClassVar[Needs] = "target"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding an algorithm."""
        fit = evidence.fit
        for entry in fit.executions if fit else ():
            if fit and entry.blocked_by == "runtime":
                yield self.finding(
                    f"{fit.runtime} does not load {entry.algorithm}: {entry.reason} "
                    f"({entry.source})",
                    "Name another runtime, or export with an algorithm that this one has.",
                )
