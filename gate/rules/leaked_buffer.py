"""Rule leaked-buffer."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.records import Finding
from gate.rule import Evidence, Rule

BUFFERS = frozenset({"_amax", "_scale", "_double_scale", "_pre_quant_scale", "_bias_value"})
LOW_RANK = frozenset({"_svdquant_lora_a", "_svdquant_lora_b"})
"""Exported by ModelOpt under the quantizer's name: no runtime reads it, and nothing is broken."""
QUANTIZER = "_quantizer."


class LeakedBuffer(Rule):
    """Internal buffers of the quantizer were saved with the weights.

    Flags:
        Tensors below a `*_quantizer` module, and `_amax`, `_scale` or `_double_scale` where the
        format has no such tensor. The low-rank part of SVDQuant, which ModelOpt saves under its
        quantizer's name, is a note.
    Why:
        The model was saved while it was still being simulated, or its compressed form was saved as
        it lay in memory: strict loaders stop at the unknown name, and the scales beside them may
        be meaningless.
    Repair:
        Export again with export_hf_checkpoint of ModelOpt 0.46 or newer.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/2038
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all buffers, and one for all low-rank parts."""
        leaked: list[TensorInfo] = []
        low_rank: list[TensorInfo] = []
        for name, info in evidence.checkpoint.tensors.items():
            leaf = name.rpartition(".")[2]
            if leaf in LOW_RANK:
                low_rank.append(info)
            elif leaf in BUFFERS or QUANTIZER in name:
                leaked.append(info)
        form = evidence.form
        leaked = [info for info in leaked if form is None or not form.is_companion(info.name)]
        if leaked:
            yield self.finding(
                f"{len(leaked):,} internal buffers of the quantizer are stored, "
                f"{leaked[0].name} for one",
                "Export again with export_hf_checkpoint of ModelOpt 0.46 or newer.",
                tensor=leaked[0].name,
                file=leaked[0].file,
            )
        if low_rank:
            yield self.finding(
                f"{len(low_rank):,} low-rank parts of SVDQuant are stored under the quantizer's "
                f"name, {low_rank[0].name} for one: no runtime loads them",
                "Serve the model with a runtime that has SVDQuant, or export NVFP4_AWQ instead.",
                tensor=low_rank[0].name,
                file=low_rank[0].file,
                severity="note",
            )
