"""Rule name-prefix."""

from collections.abc import Iterator

from gate.records import Finding
from gate.rule import Evidence, Rule

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.")
"""What wrappers for training, compilation and adapters put before a model's names."""

SHIFTED = (
    "vision_model.language_model.",
    "vision_model.model.",
    "vision_model.lm_head.",
    "model.language_model.language_model.",
    "language_model.language_model.",
)
"""Prefixes that are one too many: a language model lies in no vision model, nor in itself."""

PLAIN = frozenset(
    {
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm4_moe",
        "gpt_oss",
        "olmo2",
        "smollm3",
        "granite",
        "minimax_m2",
    }
)
"""Values of model_type whose modules are called `model.layers.0...`, without another `model.`."""


class NamePrefix(Rule):
    """Tensors carry a prefix that the architecture does not have.

    Flags:
        Names that begin as a wrapper's do (`module.`, `_orig_mod.`, `base_model.model.`), that put
        the language model into the vision model or into itself, and `model.model.` where
        model_type is a plain decoder. Other prefixes of multimodal models differ between versions
        of transformers, and are not judged.
    Why:
        No runtime finds a module of that name; some only warn, and compute with uninitialised
        weights.
    Repair:
        Rename the tensors; for multimodal models export with ModelOpt 0.47 or newer.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/2076
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a prefix."""
        checkpoint = evidence.checkpoint
        plain = evidence.architecture.model_type in PLAIN
        prefixes = (*WRAPPERS, *SHIFTED, *(("model.model.",) if plain else ()))
        wrong = [name for name in checkpoint.tensors if name.startswith(prefixes)]
        for prefix in prefixes:
            found = [name for name in wrong if name.startswith(prefix)]
            if found:
                yield self.finding(
                    f"{len(found):,} of {len(checkpoint.tensors):,} tensors begin with {prefix}, "
                    f"{found[0]} for one; the architecture has no such module",
                    "Rename the tensors, or export again with a current ModelOpt.",
                    tensor=found[0],
                    file=checkpoint.tensors[found[0]].file,
                )
