"""Rule scale-not-power-of-two."""

from collections.abc import Iterator
from typing import ClassVar

from gate.quantization import FLOAT_DTYPES, QuantizedLayer, Role
from gate.records import Finding, Severity
from gate.rule import Evidence, Needs, Rule


class ScaleNotPowerOfTwo(Rule):
    """Scales are declared to be powers of two, and are not.

    Flags:
        A floating-point scale of a weight that is no power of two, where the configuration has
        scale_fmt ue8m0.
    Why:
        Kernels for ue8m0 keep the exponent alone: the weights come out up to a factor of two too
        small, or are quantized a second time.
    Repair:
        Round the scales up to powers of two before quantizing, or remove scale_fmt.
    Source:
        https://github.com/deepseek-ai/DeepGEMM
        and https://github.com/huggingface/transformers (`integrations/finegrained_fp8.py`)
    """

    severity: ClassVar[Severity] = "warning"
    needs: ClassVar[Needs] = "data"
    formats: ClassVar[frozenset[str]] = frozenset({"fp8"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a layer."""
        if (evidence.checkpoint.quantization_config or {}).get("scale_fmt") != "ue8m0":
            return
        for layer in evidence.layers:
            yield from self._check(layer)

    def _check(self, layer: QuantizedLayer) -> Iterator[Finding]:
        import numpy as np

        info = layer.tensors.get(Role.WEIGHT_SCALE)
        if info is None or info.dtype not in FLOAT_DTYPES:
            return
        values, _ = layer.scales[Role.WEIGHT_SCALE].counted
        mantissas = np.frexp(values)[0]
        bad = int(np.count_nonzero(np.isfinite(values) & (values > 0) & (mantissas != 0.5)))
        if bad:
            yield self.finding(
                f"{bad:,} of {info.numel:,} values of {info.name} are no powers of two; "
                "the configuration has scale_fmt ue8m0",
                "Round the scales up before quantizing, or remove scale_fmt.",
                tensor=info.name,
                file=info.file,
            )
