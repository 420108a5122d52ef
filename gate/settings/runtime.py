"""How a runtime quantizes a checkpoint that is not quantized, while it loads it."""

from itertools import product
from typing import Literal, Self, get_args

from pydantic import model_validator

from gate.settings.metrics import Part

FourBits = Literal["nf4", "fp4"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]


class RuntimeQuantization(Part):
    """One of `load_in_8bit` and `load_in_4bit`, as transformers has bitsandbytes do it.

    Source: https://huggingface.co/docs/transformers/quantization/bitsandbytes
    (`BitsAndBytesConfig`, whose names and defaults these are).

    Attributes:
        load_in_8bit: LLM.int8(): weights and inputs are rounded to INT8, outliers are not.
        load_in_4bit: The four-bit values that weights are rounded to.
        bnb_4bit_use_double_quant: Whether their scales are quantized, too.
        bnb_4bit_compute_dtype: In which four-bit layers are computed.
    """

    load_in_8bit: bool = False
    load_in_4bit: FourBits | None = None
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: ComputeDtype = "float32"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.load_in_8bit == (self.load_in_4bit is not None):
            raise ValueError("give load_in_8bit: true, or load_in_4bit: nf4 or fp4")
        if self.load_in_8bit and any(name.startswith("bnb_4bit") for name in self.model_fields_set):
            raise ValueError("bnb_4bit options belong to load_in_4bit")
        return self

    @property
    def weight_bits(self) -> int:
        """Of a quantized weight."""
        return 8 if self.load_in_8bit else 4

    @property
    def label(self) -> str:
        """What is done, in words that differ where the model does."""
        if self.load_in_4bit is None:
            return "bitsandbytes INT8"
        scales = ", double quantization" if self.bnb_4bit_use_double_quant else ""
        computed = self.bnb_4bit_compute_dtype
        inputs = "" if computed == "float32" else f", computed in {computed}"
        return f"bitsandbytes {self.load_in_4bit.upper()}{scales}{inputs}"


def _all() -> set[str]:
    """The label of every way."""
    ways = product(get_args(FourBits), (False, True), get_args(ComputeDtype))
    four_bits = (
        RuntimeQuantization(
            load_in_4bit=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
        )
        for kind, double, dtype in ways
    )
    return {way.label for way in (RuntimeQuantization(load_in_8bit=True), *four_bits)}


AT_LOAD = frozenset(_all())
"""Every label: what a report may call it."""
