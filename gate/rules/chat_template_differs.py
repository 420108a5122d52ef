"""Rule chat-template-differs."""

from typing import ClassVar

from gate.records import Severity
from gate.rule import DifferenceRule


class ChatTemplateDiffers(DifferenceRule):
    """The chat template is missing or is not the reference's.

    Flags:
        The reference has a chat template, and this checkpoint has none or another one.
    Why:
        Exporters save weights only; a server then formats conversations in a way that the model was
        never trained on, and evaluation measures that.
    Repair:
        Save the reference's tokenizer into the directory.
    Source:
        https://github.com/hiyouga/LLaMA-Factory/issues/8399
    """

    severity: ClassVar[Severity] = "warning"
    about: ClassVar[str] = "chat_template"
    fix: ClassVar[str] = "Run: AutoTokenizer.from_pretrained(reference).save_pretrained(directory)"
