"""Rule tokenizer-missing."""

from collections.abc import Iterator

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


class TokenizerMissing(Rule):
    """There is no tokenizer.

    Flags:
        None of the files from which a tokenizer is loaded lies in the checkpoint.
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
        files = set(evidence.checkpoint.files)
        tiktoken = any(name.endswith(".tiktoken") for name in files)
        if not (files & ALONE or files >= TOGETHER or tiktoken):
            yield self.finding(
                "no tokenizer file (tokenizer.json, tokenizer.model, ...)",
                "Run: AutoTokenizer.from_pretrained(reference).save_pretrained(directory)",
            )
