"""Rule configs-disagree-algo."""

from collections.abc import Iterator

from gate.records import Finding
from gate.rule import Evidence, Rule


class ConfigsDisagreeAlgo(Rule):
    """config.json and hf_quant_config.json declare different algorithms.

    Flags:
        quant_algo differs between the two files, or only one of them declares one; case does not
        matter. config.json declares another method than ModelOpt's.
    Why:
        vLLM and SGLang read config.json first, TensorRT-LLM reads hf_quant_config.json: they run
        two different models.
    Repair:
        Export again, so that both files are written together, and edit neither by hand.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/14088
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a difference."""
        declared = evidence.declarations
        for other in declared[1:]:
            algos = [(found.quant_algo or "none").upper() for found in (declared[0], other)]
            if algos[0] != algos[1]:
                yield self.finding(
                    f"{declared[0].file} and {other.file} disagree: {algos[0]} against {algos[1]}",
                    "Export again, so that both files are written together.",
                    file=other.file,
                )
        in_config = evidence.checkpoint.quantization_config
        if declared and in_config is not None and declared[0].file != "config.json":
            method = in_config.get("quant_method")
            method = method if isinstance(method, str) else "unnamed"
            yield self.finding(
                f"config.json declares quantization method {method!r}, "
                f"{declared[0].file} declares {declared[0].quant_algo}",
                "Keep the file that belongs to these weights and remove the other's declaration.",
                file="config.json",
            )
