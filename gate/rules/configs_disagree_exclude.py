"""Rule configs-disagree-exclude."""

from collections.abc import Iterator

from gate.quantization import Declaration
from gate.records import Finding
from gate.rule import Evidence, Rule


class ConfigsDisagreeExclude(Rule):
    """config.json and hf_quant_config.json exclude different modules.

    Flags:
        `ignore` and `exclude_modules` differ as sets. Where each layer's algorithm is listed, a
        missing list is no difference.
    Why:
        What one runtime leaves in high precision another reads as packed codes.
    Repair:
        Make the lists equal: the right one names exactly the modules that are stored unquantized.
    Source:
        https://github.com/vllm-project/vllm/pull/25706
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all entries."""
        declared = evidence.declarations
        for other in declared[1:]:
            one = declared[0]
            if not (_is_comparable(one) and _is_comparable(other)):
                continue
            left, right = set(one.exclude_modules or ()), set(other.exclude_modules or ())
            parts = [
                f"{len(only):,} only in {file}: {', '.join(sorted(only)[:3])}"
                for file, only in ((one.file, left - right), (other.file, right - left))
                if only
            ]
            if parts:
                yield self.finding(
                    f"the lists of excluded modules differ; {'; '.join(parts)}",
                    f"Make exclude_modules or ignore in {other.file} equal to {one.file}'s.",
                    file=other.file,
                )


def _is_comparable(declared: Declaration) -> bool:
    """Whether the file excludes something, or says by silence that it excludes nothing."""
    per_layer = declared.quantized_layers is not None
    return declared.quant_algo is not None and not (per_layer and declared.exclude_modules is None)
