"""Rule generation-config-unreadable."""

from gate.rule import OpeningRule


class GenerationConfigUnreadable(OpeningRule):
    """generation_config.json cannot be read.

    Flags:
        generation_config.json is there and is no JSON object.
    Why:
        Runtimes then use their own defaults, or do not start; end tokens may be lost.
    Repair:
        Copy it from the unquantized model.
    Source:
        https://huggingface.co/docs/transformers/main_classes/text_generation
    """

    severity = "warning"
