"""Rule tokenizer-pre-missing."""

from collections.abc import Iterator

from gate import ggml
from gate.records import Finding
from gate.rule import Evidence, Rule


class TokenizerPreMissing(Rule):
    """A GGUF file does not say how its text is split before it is tokenized.

    Flags:
        A byte-pair vocabulary (tokenizer.ggml.model is gpt2) without tokenizer.ggml.pre, or with
        `default`.
    Why:
        llama.cpp falls back on a splitting that is right for few models, and answers get worse:
        numbers and words outside English most.
    Repair:
        Convert the model again with a current convert_hf_to_gguf.py.
    Source:
        https://github.com/ggml-org/llama.cpp/pull/6920
        and https://github.com/ggml-org/llama.cpp/issues/7939
    """

    severity = "warning"
    formats = frozenset({"gguf"})

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        metadata = evidence.checkpoint.metadata
        if not ggml.is_model(metadata) or metadata.get("tokenizer.ggml.model") != "gpt2":
            return
        pre = metadata.get("tokenizer.ggml.pre")
        if pre is None or pre in ("", "default"):
            yield self.finding(
                f"tokenizer.ggml.pre is {'missing' if pre is None else repr(pre)}: llama.cpp "
                "guesses how text is split",
                "Convert the model again with a current convert_hf_to_gguf.py.",
                file=next(iter(evidence.checkpoint.weight_files), None),
            )
