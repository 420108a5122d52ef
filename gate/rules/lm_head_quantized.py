"""Rule lm-head-quantized."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

HEAD = "lm_head"


class LmHeadQuantized(Rule):
    """The head is stored quantized.

    Flags:
        A quantized lm_head that the configuration declares so. GGUF's `output` is not meant:
        llama.cpp quantizes it as a matter of course.
    Why:
        It is legal and saves memory, and not every runtime loads it: SGLang has left the scales
        out and repeated one token, vLLM before mid-2026 stops at lm_head.input_scale.
    Repair:
        Keep the head unquantized where the runtime is not known, and exclude it.
    Source:
        https://github.com/sgl-project/sglang/issues/34895
        and https://github.com/vllm-project/vllm/issues/45102
    """

    severity: ClassVar[Severity] = "note"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        for name in (HEAD, f"language_model.{HEAD}"):
            layer = evidence.layer_of.get(name)
            if layer is not None and layer.declared and layer.packed:
                info = next(iter(layer.tensors.values()))
                yield self.finding(
                    f"{name} is stored as {layer.algo}: SGLang and older vLLM do not load it",
                    "Leave the head unquantized, or try it on the runtime that is meant.",
                    tensor=info.name,
                    file=info.file,
                )
