"""Rule unknown-algo."""

from collections.abc import Iterator

from gate.records import Finding
from gate.rule import Evidence, Rule


class UnknownAlgo(Rule):
    """A declared algorithm does not exist.

    Flags:
        A name in quant_algo, of the checkpoint or of one layer, or of the KV cache, that neither
        ModelOpt nor TensorRT-LLM knows; case does not matter. In other formats' declarations, a
        name that no version of the format has, such as a compressed-tensors strategy or a type of
        quanto's.
    Why:
        Runtimes refuse it, or fall back to another algorithm.
    Repair:
        Correct the spelling; the weights' dtypes show what was meant.
    Source:
        https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/model_config.py`)
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a name."""
        for declared in evidence.declarations:
            for pointer, name in declared.unknown.items():
                yield self.finding(
                    f"{declared.file} declares {name!r} at {pointer}, which is no known algorithm",
                    "Correct the spelling; the weights' dtypes show what was meant.",
                    file=declared.file,
                    pointer=pointer,
                )
