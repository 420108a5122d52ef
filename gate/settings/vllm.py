"""How backend `vllm` runs its engine; the names are vLLM's own."""

from typing import Literal

from pydantic import Field

from gate.settings.metrics import Part


class Vllm(Part):
    """Arguments of vLLM's engine. What is left out is as it is where vLLM serves.

    Attributes:
        tensor_parallel_size: GPUs that divide every layer among them.
        pipeline_parallel_size: Groups of GPUs that divide the list of layers.
        data_parallel_size: Copies of the model, each on GPUs of its own; documents are divided
            among them.
        distributed_executor_backend: `ray` runs the workers on a Ray cluster of several machines,
            to which RAY_ADDRESS leads; left out, all GPUs are this machine's.
        gpu_memory_utilization: Share of a GPU's memory that the engine takes. What it leaves is
            needed for the log-probabilities of texts, which vLLM does not count.
        max_model_len: Most tokens of prompt and answer; left out, as many as the model was made for
            and memory holds.
        enable_prefix_caching: Whether the beginnings that prompts share are computed once.
        enforce_eager: Whether CUDA graphs are left out: a faster start, a slower run.
    """

    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel_size: int = Field(default=1, ge=1, le=1024)
    data_parallel_size: int = Field(default=1, ge=1, le=64)
    distributed_executor_backend: Literal["mp", "ray"] | None = None
    gpu_memory_utilization: float = Field(default=0.85, gt=0, lt=1, allow_inf_nan=False)
    max_model_len: int | None = Field(default=None, ge=16, le=10_000_000)
    enable_prefix_caching: bool = True
    enforce_eager: bool = False

    @property
    def gpus(self) -> int:
        """How many the engine takes."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size
