"""Rule quantized-but-undeclared."""

from collections.abc import Iterator

from gate.checkpoint import TensorInfo
from gate.quantization import FLOAT_DTYPES
from gate.records import Finding
from gate.rule import Evidence, Rule

MARKS = frozenset(
    {"weight_scale", "weight_scale_2", "weight_scale_inv", "weight_packed", "qweight", "qzeros"}
)
UNREADABLE = frozenset({"config-json-unreadable", "quant-config-unreadable"})


class QuantizedButUndeclared(Rule):
    """Quantized tensors are stored, and no configuration says so.

    Flags:
        Weights of a packed dtype, or weight scales, where neither config.json nor
        hf_quant_config.json declares an algorithm.
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
        if evidence.form is not None or checkpoint.quantization_config is not None or unreadable:
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


def _is_marked(info: TensorInfo) -> bool:
    suffix = info.name.rpartition(".")[2]
    packed = suffix == "weight" and len(info.shape) > 1 and info.dtype not in FLOAT_DTYPES
    return packed or suffix in MARKS
