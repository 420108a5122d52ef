"""Rule tokenizer-missing."""

from collections.abc import Iterator

from gate import ggml
from gate.records import Finding
from gate.rule import Evidence, Rule

ALONE = frozenset(
    {
        "tokenizer.json",
        "tokenizer.model",
        "tekken.json",
        "vocab.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tiktoken.model",
    }
)
"""Any one of these is a whole tokenizer."""
TOGETHER = frozenset({"vocab.json", "merges.txt"})

GGUF_VOCABULARY = "tokenizer.ggml.model"


class TokenizerMissing(Rule):
    """There is no tokenizer.

    Flags:
        None of the files from which a tokenizer is loaded lies in the checkpoint. A GGUF file has
        to carry its own (`tokenizer.ggml.model`).
    Why:
        ModelOpt's export writes the weights only; a runtime cannot serve text without a tokenizer.
    Repair:
        Save the reference's tokenizer into the directory. Where that is left out on purpose,
        ignore this rule with the reason.
    Source:
        https://github.com/vllm-project/llm-compressor/issues/1305
    """

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        if checkpoint.container is not None and checkpoint.container.suffix == ".gguf":
            metadata, whole = checkpoint.metadata, not checkpoint.broken_files
            if whole and ggml.is_model(metadata) and GGUF_VOCABULARY not in metadata:
                yield self.finding(
                    f"the file carries no tokenizer ({GGUF_VOCABULARY})",
                    "Convert it again from a directory that holds the tokenizer's files.",
                    file=next(iter(checkpoint.weight_files), None),
                )
            return
        files = set(checkpoint.files)
        tiktoken = any(name.endswith(".tiktoken") for name in files)
        found = files & ALONE or files >= TOGETHER or tiktoken
        if checkpoint.complete and not found:
            yield self.finding(
                "no tokenizer file (tokenizer.json, tokenizer.model, ...)",
                "Run: AutoTokenizer.from_pretrained(reference).save_pretrained(directory)",
            )
