"""Rule config-json-unreadable."""

from gate.rule import OpeningRule


class ConfigJsonUnreadable(OpeningRule):
    """config.json is missing or cannot be read.

    Flags:
        config.json is absent, is no JSON object, is larger than 64 MB, or is a link that leads
        out of the checkpoint. GGUF files need none: they carry their own configuration.
    Why:
        Every runtime takes the architecture from it.
    Repair:
        Copy it from the export, or export the checkpoint again.
    Source:
        https://huggingface.co/docs/transformers/main_classes/configuration
    """
