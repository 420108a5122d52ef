"""Rule mixed-without-layers."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import MIXED, Declaration
from gate.records import Finding
from gate.rule import Evidence, Rule

OWN_LAYERS = "quant_cfg.json"
"""TensorRT-LLM reads the layers from this file where it is there."""


class MixedWithoutLayers(Rule):
    """Mixed precision is declared, and no layer's algorithm is.

    Flags:
        quant_algo MIXED_PRECISION with an empty quantized_layers or without any, in either file.
        hf_quant_config.json may leave the layers to quant_cfg.json.
    Why:
        A runtime cannot know what any layer is: vLLM stops with an error.
    Repair:
        Export again, or copy quantized_layers from the other file.
    Source:
        https://github.com/vllm-project/vllm (`ModelOptMixedPrecisionConfig`)
    """

    formats: ClassVar[frozenset[str]] = frozenset({"modelopt"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a file."""
        checkpoint = evidence.checkpoint
        for declared in evidence.declarations:
            elsewhere = declared.file != "config.json" and OWN_LAYERS in checkpoint.files
            if _is_mixed(declared) and not declared.quantized_layers and not elsewhere:
                yield self.finding(
                    f"{declared.file} declares {MIXED} without quantized_layers",
                    "Export again, or copy quantized_layers from the other file.",
                    file=declared.file,
                )


def _is_mixed(declared: Declaration) -> bool:
    return (declared.quant_algo or "").upper() == MIXED
