"""Rule tensor-misplaced."""

from gate.rule import OpeningRule


class TensorMisplaced(OpeningRule):
    """A tensor of a GGUF file does not begin where the one before it ends.

    Flags:
        Fewer bytes are reserved than the type and the dimensions ask for, so that the next tensor
        overlaps; gaps; offsets that are no multiple of general.alignment.
    Why:
        llama.cpp refuses the file. Runtimes that do not look read a neighbour's bytes as weights:
        expert stacks were partly garbage.
    Repair:
        Write the file again with gguf-py or llama-quantize; a type whose rows are interleaved
        needs a number of rows that it divides.
    Source:
        https://github.com/ikawrakow/ik_llama.cpp/pull/2437
    """

    formats = frozenset({"gguf"})
