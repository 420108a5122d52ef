"""Rule configs-disagree-group-size."""

from collections.abc import Iterator

from gate.quantization import Declaration
from gate.records import Finding
from gate.rule import Evidence, Rule


class ConfigsDisagreeGroupSize(Rule):
    """config.json and hf_quant_config.json state different group sizes.

    Flags:
        The group size, of the checkpoint or of one layer, differs; config_groups counts as stating
        it. A size that only one file states is no difference: ModelOpt leaves it out of
        config.json for some algorithms.
    Why:
        Runtimes that read different files put the scales under different weights.
    Repair:
        Set both to what the stored scales show: a row's inputs divided by its scales.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/14088
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for the checkpoint, one a layer."""
        declared = evidence.declarations
        for other in declared[1:]:
            first = declared[0]
            for module, one, two in _differences(first, other):
                yield self.finding(
                    f"{first.file} and {other.file} disagree: group size {one} against {two}"
                    + (f" for {module}" if module else ""),
                    "Set both to the inputs of a row divided by its stored scales.",
                    tensor=module,
                    file=other.file,
                )


def _differences(first: Declaration, other: Declaration) -> Iterator[tuple[str | None, int, int]]:
    """Module (None for the whole checkpoint) and the two sizes."""
    sizes = first.group_size, other.group_size
    if not (first.quantized_layers or other.quantized_layers):
        if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
            yield None, sizes[0], sizes[1]
        return
    theirs = other.quantized_layers or {}
    for module, entry in (first.quantized_layers or {}).items():
        one, two = entry.get("group_size"), theirs.get(module, {}).get("group_size")
        if type(one) is int and type(two) is int and one != two:
            yield module, one, two
