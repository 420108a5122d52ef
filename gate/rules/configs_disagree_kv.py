"""Rule configs-disagree-kv."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule


class ConfigsDisagreeKv(Rule):
    """config.json and hf_quant_config.json declare different KV caches.

    Flags:
        The KV cache's algorithm differs between the two files, or only one of them declares one.
    Why:
        One runtime keeps the cache in FP8, another in 16 bits: memory, speed and answers differ
        with the runtime.
    Repair:
        Set kv_cache_quant_algo in hf_quant_config.json and kv_cache_scheme in config.json to the
        same.
    Source:
        https://github.com/ai-dynamo/aiconfigurator/pull/1513
        and https://github.com/vllm-project/vllm/pull/29980
    """

    severity: ClassVar[Severity] = "warning"

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding a file."""
        declared = evidence.declarations
        for other in declared[1:]:
            algos = [
                (found.kv_cache_quant_algo or "none").upper() for found in (declared[0], other)
            ]
            if algos[0] != algos[1]:
                yield self.finding(
                    f"{declared[0].file} and {other.file} disagree: KV cache {algos[0]} "
                    f"against {algos[1]}",
                    "Declare the same KV cache in both files.",
                    file=other.file,
                )
