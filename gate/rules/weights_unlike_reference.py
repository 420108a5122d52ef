"""Rule weights-unlike-reference."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Needs, Rule

LEAST_COSINE = 0.98
"""Below what any format of four or more bits loses: MXFP4, the coarsest, keeps 0.993."""


class WeightsUnlikeReference(Rule):
    """A layer's decoded weights are not the reference's.

    Flags:
        The cosine between a layer's decoded weights and the reference's is below 0.98. Formats
        that scale weights and norms against each other (AWQ, SmoothQuant) are exempt.
    Why:
        Rounding cannot do that: scales belong to another layer, halves of bytes are swapped, or
        the weights come from another model.
    Repair:
        Export again from the reference; compare the first layer of the list with its neighbours.
    Source:
        https://github.com/modular/modular/issues/6600; measured on SmolLM2-135M: FP8 0.9996,
        NVFP4 0.9955, INT4 in groups of 128 0.993, MXFP4 0.993.
    """

    needs: ClassVar[Needs] = "reference"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a layer, the worst first."""
        if evidence.reference is None or evidence.reference.smoothed:
            return
        for error in evidence.reference.layers:
            if not error.cosine >= LEAST_COSINE:
                yield self.finding(
                    f"{error.layer}: decoded weights have cosine {error.cosine:.4f} and relative "
                    f"error {error.relative_rms:.3f} against the reference",
                    "Export this checkpoint again from the reference.",
                    tensor=f"{error.layer}.weight",
                )
