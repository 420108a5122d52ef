"""Rule unknown-tensor-type."""

from collections.abc import Iterator

from gate import ggml
from gate.quantization import QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Rule


class UnknownTensorType(Rule):
    """A tensor of a GGUF file has a type that llama.cpp cannot read.

    Flags:
        Types that ggml never had or has removed. Those of ik_llama.cpp are a warning: it reads
        them, and llama.cpp does not.
    Why:
        llama.cpp refuses the file; where a number was given to another type since, it reads
        garbage.
    Repair:
        Quantize again with a type of llama.cpp, or run the model with ik_llama.cpp.
    Source:
        https://github.com/ggml-org/llama.cpp/blob/master/ggml/include/ggml.h
        and https://github.com/ikawrakow/ik_llama.cpp
    """

    formats = frozenset({"gguf"})

    def check_layer(self, layer: QuantizedLayer) -> Iterator[Finding]:
        """At most one finding."""
        weight = layer.tensors[Role.WEIGHT]
        if ggml.block(weight.dtype) is not None:
            return
        fork = ggml.is_fork_type(weight.dtype)
        readers = "only ik_llama.cpp reads it" if fork else "ggml has no such type"
        yield self.finding(
            f"{weight.name} is {weight.dtype}: {readers}",
            "Quantize the model again with a type that llama.cpp has.",
            tensor=weight.name,
            file=weight.file,
            severity="warning" if fork else "error",
        )
