"""Rule header-unreadable."""

from gate.rule import OpeningRule


class HeaderUnreadable(OpeningRule):
    """A weight file's header, or the index, cannot be trusted.

    Flags:
        The header is no JSON, claims an absurd length, names a tensor twice, or has shapes,
        dtypes and offsets that contradict each other, overlap or leave gaps; the index has no
        weight_map, or names a file outside the checkpoint. Of a GGUF file: another magic, version
        or byte order, counts beyond reason, keys or tensors named twice.
    Why:
        Readers refuse such a file, or read other bytes than were written.
    Repair:
        Save the weights again with the safetensors library; convert a GGUF file again.
    Source:
        https://huggingface.co/docs/safetensors/index#format
        and https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
