"""Rule missing-required-field."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

REQUIRED = {
    "NVFP4": ("group_size", "kv_cache_quant_algo", "exclude_modules"),
    "MXFP8": ("kv_cache_quant_algo", "exclude_modules"),
}
"""Fields of hf_quant_config.json by algorithm."""


class MissingRequiredField(Rule):
    """hf_quant_config.json lacks a field, and config.json has no copy.

    Flags:
        NVFP4 without group_size, kv_cache_quant_algo or exclude_modules, MXFP8 without the last
        two, where config.json has no quantization_config that is read in its place. An error where
        vLLM is the runtime that is meant.
    Why:
        vLLM asks for them by name and stops with an error; null and an empty list are answers.
    Repair:
        Export with ModelOpt 0.31 or newer, which writes both files, or add the field.
    Source:
        https://github.com/vllm-project/vllm
        (`ModelOptNvFp4Config.from_config` in quantization/modelopt.py)
    """

    severity: ClassVar[Severity] = "warning"
    formats: ClassVar[frozenset[str]] = frozenset({"modelopt"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        declared = checkpoint.hf_quant_config
        if declared is None or checkpoint.quantization_config is not None:
            return
        body: Mapping[str, Any] = declared.get("quantization", declared)
        algo = body.get("quant_algo") if isinstance(body, Mapping) else None
        wanted = REQUIRED.get(algo.upper(), ()) if isinstance(algo, str) else ()
        missing = [field for field in wanted if field not in body]
        if missing:
            yield self.finding(
                f"hf_quant_config.json has no {', '.join(missing)}; vLLM asks for it with {algo} "
                "where config.json has no quantization_config",
                f"Add {' and '.join(missing)} to hf_quant_config.json.",
                file="hf_quant_config.json",
                pointer="/quantization" if body is not declared else "",
                severity="error" if _is_meant_for_vllm(evidence) else None,
            )


def _is_meant_for_vllm(evidence: Evidence) -> bool:
    return evidence.fit is not None and evidence.fit.target.runtime == "vllm"
