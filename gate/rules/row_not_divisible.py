"""Rule row-not-divisible."""

from gate.rule import OpeningRule


class RowNotDivisible(OpeningRule):
    """The blocks of a GGUF tensor's type do not divide its rows.

    Flags:
        A quantized tensor whose number of columns is no multiple of its type's block.
    Why:
        ggml refuses the tensor: a block would reach from one row into the next.
    Repair:
        Quantize again: llama-quantize takes a type with smaller blocks for such tensors.
    Source:
        https://github.com/ggml-org/llama.cpp/issues/2143
    """

    formats = frozenset({"gguf"})
