"""What the reference computes with, in words."""

from collections.abc import Iterable

from gate.backends.hf_cache import Cache
from gate.backends.hf_rounding import InputQuantizer


def described(
    dtype: str, quantizers: Iterable[InputQuantizer], cache: Cache | None, skipped: int
) -> str:
    """The kernel of a quantized checkpoint.

    Args:
        dtype: Of its decoded weights.
        quantizers: Of its inputs.
        cache: Its KV cache; None where activations are off.
        skipped: Modules of experts whose inputs are not rounded.
    """
    schemes = {quantizer.described for quantizer in quantizers}
    inputs = f"inputs rounded to {' and '.join(sorted(schemes))}"
    kernel = f"weights decoded to {dtype}, {inputs if schemes else 'inputs not quantized'}"
    if skipped:
        kernel += f"; inputs of the experts in {skipped} modules not quantized"
    if cache is None or cache.algo is None:
        return kernel
    if cache.modules:
        return f"{kernel}; keys and values rounded to FP8"
    return f"{kernel}; KV cache not quantized, although declared as {cache.algo}"
