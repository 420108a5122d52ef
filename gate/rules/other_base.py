"""Rule other-base."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding
from gate.rule import Evidence, Needs, Rule


class OtherBase(Rule):
    """The tensors that quantization leaves alone are not the reference's.

    Flags:
        Embeddings, norms, biases, routers or a head in the reference's dtype whose bytes differ
        from the reference's. Formats that scale norms and weights against each other (AWQ,
        SmoothQuant, SVDQuant) are exempt; where only the format's name could tell, as with INT8
        activations of compressed-tensors, it is a warning.
    Why:
        The checkpoint was made from another model, for example from yesterday's fine-tune: every
        comparison with this reference is then about two models.
    Repair:
        Quantize the reference, or name the reference that was quantized. Training after
        quantization (QAT) changes these tensors rightly: ignore this rule with that reason.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/unified_export_hf.py`):
        what is not quantized is copied, 62 of 62 tensors in exports of SmolLM2-135M.
    """

    needs: ClassVar[Needs] = "reference"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all tensors."""
        found = evidence.reference
        if found is None or found.smoothed or not found.changed_tensors:
            return
        total = found.equal_tensors + len(found.changed_tensors)
        certain = evidence.form is None or evidence.form.name not in MAY_SMOOTH
        yield self.finding(
            f"{len(found.changed_tensors):,} of {total:,} unquantized tensors differ from "
            f"{found.source}'s, {found.changed_tensors[0]} for one",
            "Name the model that was quantized as the reference, or quantize this one again.",
            tensor=found.changed_tensors[0],
            severity="error" if certain else "warning",
        )


MAY_SMOOTH = frozenset({"compressed-tensors", "quark", "torchao"})
"""Formats whose declaration does not say whether weights were smoothed or rotated first."""
