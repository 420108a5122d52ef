"""Rule configs-disagree-algo."""

from collections.abc import Iterator, Mapping
from typing import Any

from gate.quantization import Declaration
from gate.records import Finding
from gate.rule import Evidence, Rule


class ConfigsDisagreeAlgo(Rule):
    """config.json and hf_quant_config.json declare different algorithms.

    Flags:
        The algorithm, the algorithm of a layer, or the group size differs between the two files;
        case does not matter, and a value that only one file states is no difference.
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
        declared = evidence.form.declarations(evidence.checkpoint) if evidence.form else ()
        for other in declared[1:]:
            for difference in _differences(declared[0], other):
                yield self.finding(
                    f"{declared[0].file} and {other.file} disagree: {difference}",
                    "Export again with ModelOpt, which writes both files.",
                    file=other.file,
                )
        in_config = evidence.checkpoint.quantization_config
        if declared and in_config is not None and declared[0].file != "config.json":
            method = in_config.get("quant_method")
            yield self.finding(
                f"config.json declares quantization method {method!r}, "
                f"{declared[0].file} declares {declared[0].quant_algo}",
                "Keep the file that belongs to these weights and remove the other's declaration.",
                file="config.json",
            )


def _differences(one: Declaration, other: Declaration) -> Iterator[str]:
    algos = [(found.quant_algo or "none").upper() for found in (one, other)]
    if algos[0] != algos[1]:
        yield f"{algos[0]} against {algos[1]}"
        return
    if one.quantized_layers is None and other.quantized_layers is None:
        sizes = one.group_size, other.group_size
        if None not in sizes and sizes[0] != sizes[1]:
            yield f"group size {sizes[0]} against {sizes[1]}"
    if one.quantized_layers is not None and other.quantized_layers is not None:
        left, right = _normal(one.quantized_layers), _normal(other.quantized_layers)
        for module in sorted(left.keys() | right.keys()):
            if left.get(module) != right.get(module):
                yield f"{module} is {_say(left.get(module))} against {_say(right.get(module))}"


def _normal(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, object]]:
    return {
        module: (str(entry.get("quant_algo")).upper(), entry.get("group_size"))
        for module, entry in layers.items()
    }


def _say(entry: tuple[str, object] | None) -> str:
    if entry is None:
        return "not quantized"
    return f"{entry[0]} in groups of {entry[1]}" if entry[1] else entry[0]
