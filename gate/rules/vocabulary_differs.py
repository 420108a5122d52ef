"""Rule vocabulary-differs."""

from typing import ClassVar

from gate.rule import DifferenceRule


class VocabularyDiffers(DifferenceRule):
    """The vocabulary has another size than the reference's.

    Flags:
        vocab_size differs.
    Why:
        Rows were added or cut: token ids beyond the shorter table have no meaning.
    Repair:
        Export again from the reference, or name the reference that it was made from.
    Source:
        https://huggingface.co/docs/transformers/main_classes/model
    """

    about: ClassVar[str] = "vocabulary"
    fix: ClassVar[str] = "Export again from the reference, or name the right reference."
