"""Rule quantized-but-undeclared."""

from collections.abc import Iterator

from gate.checkpoint import Checkpoint, TensorInfo
from gate.quantization import FLOAT_DTYPES
from gate.records import Finding
from gate.rule import Evidence, Rule

MARKS = frozenset(
    {
        "weight_scale", "weight_scale_2", "weight_scale_inv", "weight_packed",
        "weight_global_scale", "qweight", "qzeros", "absmax", "SCB", "_data",
        "gate_up_proj_blocks", "down_proj_blocks",
    }
)  # fmt: skip
"""What the last part of a name tells, whichever format wrote it."""
UNREADABLE = frozenset({"config-json-unreadable", "quant-config-unreadable"})


class QuantizedButUndeclared(Rule):
    """Quantized tensors are stored, and no configuration says so.

    Flags:
        Weights of a packed dtype, or weight scales, where neither config.json nor
        hf_quant_config.json declares an algorithm, or where they say that nothing is quantized;
        weights cast to float8 without any scale.
    Why:
        Runtimes read the codes as if they were the weights.
    Repair:
        Restore hf_quant_config.json and quantization_config from the export.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/3772
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all tensors."""
        checkpoint = evidence.checkpoint
        unreadable = any(problem.rule in UNREADABLE for problem in checkpoint.problems)
        if evidence.form is not None or unreadable or _names_another(checkpoint):
            return
        marked = [info for info in checkpoint.tensors.values() if _is_marked(info)]
        if marked:
            first = marked[0]
            yield self.finding(
                f"{len(marked):,} tensors are quantized, {first.name} ({first.dtype}) for one, "
                "and no configuration declares an algorithm",
                "Restore hf_quant_config.json and quantization_config from the export.",
                tensor=first.name,
                file=first.file,
            )


def _names_another(checkpoint: Checkpoint) -> bool:
    """Whether config.json declares a method that is not described here."""
    declared = checkpoint.quantization_config or {}
    return "quant_algo" not in declared and "quant_method" in declared


def _is_marked(info: TensorInfo) -> bool:
    suffix = info.name.rpartition(".")[2]
    packed = suffix == "weight" and len(info.shape) > 1 and info.dtype not in FLOAT_DTYPES
    return packed or suffix in MARKS
