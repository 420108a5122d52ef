"""Rule architecture-differs."""

from typing import ClassVar

from gate.rule import DifferenceRule


class ArchitectureDiffers(DifferenceRule):
    """The configuration describes another model than the reference's.

    Flags:
        A figure of config.json that both give and that differs: layers, widths, heads, experts,
        rotary embedding, norms, activation, tied embeddings.
    Why:
        The same weights compute something else under another figure, and no loader objects to a
        changed rope_theta or rms_norm_eps.
    Repair:
        Copy the field from the reference, or name the reference that it was made from.
    Source:
        https://github.com/vllm-project/vllm/issues/40885
    """

    about: ClassVar[str] = "architecture"
    fix: ClassVar[str] = (
        "Copy the field from the reference's config.json, or name the right reference."
    )
