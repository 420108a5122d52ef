"""Rule mtp-missing."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")


class MtpMissing(Rule):
    """The layers for multi-token prediction are not stored.

    Flags:
        num_nextn_predict_layers or mtp_num_hidden_layers above zero, and neither a module called
        mtp or nextn nor a layer past the last one. That such a layer is stored unquantized and not
        excluded, unquantized-not-excluded says.
    Why:
        transformers does not build these layers, so that an export through it loses them:
        speculative decoding stops, or its drafts are never accepted.
    Repair:
        Copy the layers from the original, and exclude them; or set the count to zero.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/issues/733
        and https://github.com/intel/auto-round/issues/1477
    """

    severity: ClassVar[Severity] = "warning"
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        model, inventory = evidence.architecture, evidence.inventory
        count = model.number(*COUNTS)
        if not count or not model.layers or not inventory.layers:
            return
        if not inventory.drafts(model.layers) and not evidence.checkpoint.broken_files:
            yield self.finding(
                f"config.json says {count:,} layers for multi-token prediction; none is stored",
                "Copy them from the original and exclude them, or set the count to zero.",
                file="config.json",
            )
