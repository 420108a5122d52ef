"""What is asked of vLLM's workers, in the processes that hold the model.

vLLM mixes `Worker` into its own, by `worker_extension_cls`. What is told travels back as plain
values.

Source: https://docs.vllm.ai/en/latest/api/vllm/config/parallel/ (`worker_extension_cls`), and the
classes of vLLM 0.33: a layer's `quant_method` or `scheme` keeps what it multiplies with as an
attribute of its own, and an attention layer tells its backend by `get_attn_backend`.
"""

from collections.abc import Iterator
from typing import Any

KERNELS = ("vllm.model_executor.kernels.", "vllm.model_executor.layers.fused_moe.")
"""Where vLLM keeps what multiplies."""


class Worker:
    """Methods that vLLM's worker gains; none of their names may be one of its own."""

    def quant_gate_kernels(self) -> dict[str, list[str]]:
        """By which classes of vLLM layers and attention are computed: `kernels`, `attention`."""
        return kernels(self.get_model())  # type: ignore[attr-defined]

    def quant_gate_peak_bytes(self) -> int:
        """Most memory of the GPU that was in use since the last question; none is held back."""
        import torch

        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return int(peak)


def kernels(model: Any) -> dict[str, list[str]]:
    """What computes a model's layers and its attention, each named once.

    Args:
        model: A torch module of vLLM's.
    """
    layers, attention = set(), set()
    for module in model.modules():
        if callable(getattr(module, "get_attn_backend", None)):
            attention.add(str(module.get_attn_backend().get_name()))
        # compressed-tensors has one method for all, and a scheme that differs.
        method = getattr(module, "scheme", None) or getattr(module, "quant_method", None)
        if hasattr(module, "quant_method") and method is not None:
            layers.add(" with ".join([type(method).__name__, *sorted(set(_multiplying(method)))]))
    return {"kernels": sorted(layers), "attention": sorted(attention)}


def _multiplying(method: Any) -> Iterator[str]:
    """Classes of the kernels that a method keeps; of experts, what lies inside of the kernel."""
    for kept in vars(method).values():
        if type(kept).__module__.startswith(KERNELS):
            experts = getattr(getattr(kept, "impl", None), "fused_experts", None)
            yield type(kept if experts is None else experts).__name__
