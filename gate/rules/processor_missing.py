"""Rule processor-missing."""

from collections.abc import Iterator
from typing import ClassVar

from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

TOWERS = {"vision_config": "images", "audio_config": "audio"}
"""What config.json calls the part of a multimodal model, and what it reads."""

PROCESSORS = frozenset(
    {
        "preprocessor_config.json",
        "processor_config.json",
        "image_processor_config.json",
        "video_preprocessor_config.json",
    }
)
OWN_LAYOUT = frozenset({"params.json", "tekken.json"})
"""Mistral's own layout keeps the processor's settings in the tokenizer."""


class ProcessorMissing(Rule):
    """A multimodal model comes without its processor.

    Flags:
        config.json has a vision_config or audio_config, and there is no preprocessor_config.json
        or processor_config.json.
    Why:
        Exporters save weights only; a runtime cannot cut images or sound into inputs without it,
        and does not start.
    Repair:
        Save the reference's processor into the directory.
    Source:
        https://github.com/vllm-project/llm-compressor/issues/1305
    """

    severity: ClassVar[Severity] = "warning"
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """At most one finding."""
        checkpoint = evidence.checkpoint
        files = set(checkpoint.files)
        if checkpoint.container is not None and checkpoint.container.suffix == ".gguf":
            return  # llama.cpp reads them from a file of its own (mmproj)
        if files & PROCESSORS or files >= OWN_LAYOUT:
            return
        for field, what in TOWERS.items():
            tower = checkpoint.config.get(field)
            if isinstance(tower, dict) and tower:
                yield self.finding(
                    f"the model reads {what} ({field}), and there is no preprocessor_config.json",
                    "Run: AutoProcessor.from_pretrained(reference).save_pretrained(directory)",
                    file="config.json",
                    pointer=f"/{field}",
                )
                return
