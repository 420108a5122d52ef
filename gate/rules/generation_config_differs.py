"""Rule generation-config-differs."""

from typing import ClassVar

from gate.records import Severity
from gate.rule import DifferenceRule


class GenerationConfigDiffers(DifferenceRule):
    """The generation settings are missing or are not the reference's.

    Flags:
        generation_config.json is missing, or another end token, sampling setting or penalty is in
        it.
    Why:
        A missing end token makes answers run on to the limit; another temperature changes every
        answer.
    Repair:
        Copy generation_config.json from the reference.
    Source:
        https://huggingface.co/docs/transformers/main_classes/text_generation
    """

    severity: ClassVar[Severity] = "warning"
    about: ClassVar[str] = "generation_config"
    fix: ClassVar[str] = "Copy generation_config.json from the reference."
