"""Rule configs-disagree-layers."""

from collections.abc import Iterator, Mapping
from typing import Any

from gate.records import Finding
from gate.rule import Evidence, Rule


class ConfigsDisagreeLayers(Rule):
    """config.json and hf_quant_config.json declare different algorithms for a layer.

    Flags:
        quantized_layers names another algorithm for a module, or names it in one file only. A file
        that lists no layers is no difference.
    Why:
        vLLM and SGLang read config.json first, TensorRT-LLM reads hf_quant_config.json: one of
        them reads the layer's codes as something else.
    Repair:
        Export again, so that both files are written together, and edit neither by hand.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/14088
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a module."""
        declared = evidence.declarations
        for other in declared[1:]:
            first = declared[0]
            if not (first.quantized_layers and other.quantized_layers):
                continue
            left, right = _algos(first.quantized_layers), _algos(other.quantized_layers)
            for module in sorted(left.keys() | right.keys()):
                one, two = left.get(module), right.get(module)
                if one != two:
                    yield self.finding(
                        f"{first.file} and {other.file} disagree: {module} is "
                        f"{one or 'not quantized'} against {two or 'not quantized'}",
                        "Export again with ModelOpt, which writes both files.",
                        tensor=module,
                        file=other.file,
                    )


def _algos(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {
        module: algo.upper() if isinstance(algo := entry.get("quant_algo"), str) else "NONE"
        for module, entry in layers.items()
    }
