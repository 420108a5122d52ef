"""Rotary embeddings of a GGUF file whose frequencies are scaled."""

from typing import Any

import numpy as np

from gate.checkpoint import Checkpoint
from gate.codes import decode_float
from gate.errors import BackendUnavailableError

DEFAULT_BASE = 10000.0
"""What llama.cpp takes where no key gives the base of the frequencies."""

FREQUENCIES = "rope_freqs.weight"
"""Divisors of the frequencies, float32, shape (head_dim / 2,)."""

LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""How Llama 3.1 and later scale; the file keeps the result alone."""

TOLERANCE = 1e-4
"""Relative: the converter computes the divisors in float32."""


def scale(checkpoint: Checkpoint, config: Any) -> None:
    """Have the model scale its frequencies as the file does.

    transformers passes over the divisors, which would give another model.

    Args:
        checkpoint: A GGUF file.
        config: transformers' own, changed here.

    Raises:
        BackendUnavailableError: They are not scaled as Llama 3's.

    Source: https://github.com/ggml-org/llama.cpp (`convert_hf_to_gguf.py`, `rope_freqs`).
    """
    info = checkpoint.tensors.get(FREQUENCIES)
    if info is None:
        return
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    fits = False
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if info.dtype == "F32" and info.shape == (head // 2,):
        stored = decode_float(checkpoint.read(info), info.dtype, np)
        base = config.rope_parameters["rope_theta"]
        config.rope_parameters = {**LLAMA3, "rope_theta": base, "factor": float(stored.max())}
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        with np.errstate(all="ignore"):
            divisors = base ** (-np.arange(0, head, 2) / head) / scaled.numpy()
        fits = bool(np.allclose(divisors, stored, rtol=TOLERANCE, atol=0))
    if not fits:
        raise BackendUnavailableError(
            f"{checkpoint.source} scales its rotary embeddings in another way than Llama 3, by "
            f"{FREQUENCIES}",
            "Judge it with backend: server and llama.cpp's own server, or statically with gate "
            "lint.",
        )
