"""How a runtime quantizes a checkpoint that is not quantized, while it loads it."""

from collections.abc import Iterator
from itertools import product
from typing import Literal, Self, get_args

from pydantic import model_validator

from gate.settings.metrics import Part

FourBits = Literal["nf4", "fp4"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]


class RuntimeQuantization(Part):
    """What transformers has bitsandbytes do, or what vLLM does, named as they name it.

    Source: https://huggingface.co/docs/transformers/quantization/bitsandbytes
    (`BitsAndBytesConfig`); https://docs.vllm.ai/en/latest/features/quantization/ (`EngineArgs`).

    Attributes:
        load_in_8bit: LLM.int8(): weights and inputs are rounded to INT8, outliers are not.
        load_in_4bit: The four-bit values that weights are rounded to.
        bnb_4bit_use_double_quant: Whether their scales are quantized, too.
        bnb_4bit_compute_dtype: In which four-bit layers are computed.
        quantization: For backend `vllm`: `fp8` rounds weights and inputs to FP8.
        kv_cache_dtype: For backend `vllm`: what keys and values are rounded to.
    """

    load_in_8bit: bool = False
    load_in_4bit: FourBits | None = None
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: ComputeDtype = "float32"
    quantization: Literal["fp8"] | None = None
    kv_cache_dtype: Literal["fp8"] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        asked = (self.load_in_8bit, self.load_in_4bit is not None, bool(self.by_vllm))
        if sum(asked) != 1:
            raise ValueError(
                "give load_in_8bit: true, load_in_4bit: nf4 or fp4, or vLLM's quantization and "
                "kv_cache_dtype"
            )
        stated = any(name.startswith("bnb_4bit") for name in self.model_fields_set)
        if self.load_in_4bit is None and stated:
            raise ValueError("bnb_4bit options belong to load_in_4bit")
        return self

    @property
    def by_vllm(self) -> dict[str, str]:
        """Arguments of vLLM's engine; empty where bitsandbytes does it."""
        asked = {"quantization": self.quantization, "kv_cache_dtype": self.kv_cache_dtype}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def backend(self) -> str:
        """Which backend does it."""
        return "vllm" if self.by_vllm else "native"

    @property
    def weight_bits(self) -> int:
        """Of a weight; 16 where only keys and values are quantized."""
        if self.by_vllm:
            return 8 if self.quantization else 16
        return 8 if self.load_in_8bit else 4

    @property
    def label(self) -> str:
        """What is done, in words that differ where the model does."""
        if self.by_vllm:
            cache = ["FP8 KV cache"] if self.kv_cache_dtype else []
            return f"vLLM {' with '.join([*(['FP8'] if self.quantization else []), *cache])}"
        if self.load_in_4bit is None:
            return "bitsandbytes INT8"
        scales = ", double quantization" if self.bnb_4bit_use_double_quant else ""
        computed = self.bnb_4bit_compute_dtype
        inputs = "" if computed == "float32" else f", computed in {computed}"
        return f"bitsandbytes {self.load_in_4bit.upper()}{scales}{inputs}"


def _all() -> Iterator[RuntimeQuantization]:
    """Every way."""
    yield RuntimeQuantization(load_in_8bit=True)
    for kind, double, dtype in product(get_args(FourBits), (False, True), get_args(ComputeDtype)):
        yield RuntimeQuantization(
            load_in_4bit=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
        )
    yield RuntimeQuantization(quantization="fp8")
    yield RuntimeQuantization(kv_cache_dtype="fp8")
    yield RuntimeQuantization(quantization="fp8", kv_cache_dtype="fp8")


AT_LOAD = frozenset(way.label for way in _all())
"""Every label: what a report may call it."""
