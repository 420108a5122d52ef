"""vLLM's engine: started, asked by all its copies at once, and ended with its processes."""

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gate import devices, terminal
from gate.backends.parallel import parallel
from gate.checkpoint import Checkpoint
from gate.errors import BackendError, BackendUnavailableError, OutOfMemoryError
from gate.plain import plain
from gate.records import Engine
from gate.settings import Settings, Vllm

MOST_LOGPROBS = 1024
"""Tokens of one distribution that the engine gives: as many as the settings can ask for."""

STOP_S = 1.5
"""For the engine's processes to end by themselves; see `interrupts.GRACE_S`."""

SEED = 0
"""Nothing is drawn."""

QUOTED_CHARS = 300

MEMORY = ("out of memory", "gpu memory", "kv cache")
"""What vLLM speaks of where memory does not suffice."""


class Engines:
    """One vLLM engine, or several copies of it that divide the work.

    Args:
        checkpoint: What they load.
        settings: `vllm`, `runtime_quantization` and `trust_remote_code` are read.
        chosen: The GPUs, in the order of the copies; none where Ray chooses them.

    Attributes:
        llms: vLLM's `LLM` of each copy.

    Raises:
        BackendUnavailableError: vLLM cannot load it here.
        OutOfMemoryError: It does not fit.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: Settings, chosen: Sequence[devices.Device]
    ) -> None:
        self.llms: list[Any] = []
        copies = settings.vllm.data_parallel_size
        own = settings.vllm.gpus // copies
        try:
            for copy in range(copies):
                ids = [device.index for device in chosen[copy * own : (copy + 1) * own]]
                self.llms.append(_started(checkpoint, arguments(checkpoint, settings, ids)))
        except BaseException:
            self.stop()
            raise

    @property
    def context(self) -> int:
        """Tokens of prompt and answer that fit."""
        return int(self.llms[0].model_config.max_model_len)

    @property
    def dtype(self) -> str:
        """Of the computation."""
        return str(self.llms[0].model_config.dtype).removeprefix("torch.")

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        """What vLLM gives for each prompt, in order.

        Args:
            prompts: Tokens.
            params: vLLM's `SamplingParams` of each.

        Raises:
            BackendError: The engine refuses a prompt, or died.
        """
        count = len(self.llms)

        def ask(copy: int) -> list[Any]:
            mine = [{"prompt_token_ids": list(prompt)} for prompt in prompts[copy::count]]
            if not mine:
                return []
            with answering():
                found: list[Any] = self.llms[copy].generate(
                    mine, list(params[copy::count]), use_tqdm=False
                )
            return found

        if count == 1:
            return ask(0)
        outputs: list[Any] = [None] * len(prompts)
        for copy, found in enumerate(parallel(ask, range(count), count)):
            outputs[copy::count] = found
        return outputs

    def told(self, method: str) -> list[Any]:
        """What a method of `vllm_worker.Worker` gives in every worker of every copy."""
        return [found for llm in self.llms for found in llm.collective_rpc(method)]

    def stop(self) -> None:
        """End every process of the engine, which gives the GPUs' memory back."""
        while self.llms:
            llm = self.llms.pop()
            llm.llm_engine.engine_core.shutdown(timeout=STOP_S)
            del llm
        gc.collect()

    def facts(self, settings: Settings) -> Engine:
        """What ran the model, as the engine itself says."""
        import vllm

        config = self.llms[0].llm_engine.vllm_config
        quantization = config.model_config.quantization
        workers = self.told("quant_gate_kernels")
        return Engine(
            name="vllm",
            version=vllm.__version__,
            quantization=plain(str(quantization), limit=80) if quantization else None,
            kernels=_named(found["kernels"] for found in workers),
            attention=_named(found["attention"] for found in workers),
            kv_cache_dtype=plain(str(config.cache_config.cache_dtype), limit=80),
            tensor_parallel_size=settings.vllm.tensor_parallel_size,
            pipeline_parallel_size=settings.vllm.pipeline_parallel_size,
            data_parallel_size=settings.vllm.data_parallel_size,
        )


def arguments(
    checkpoint: Checkpoint, settings: Settings, device_ids: Sequence[int]
) -> dict[str, Any]:
    """What vLLM's `LLM` is given.

    Args:
        device_ids: Of the GPUs, counted among those that this process sees; none for Ray's.
    """
    asked = settings.vllm
    given: dict[str, Any] = {
        "model": str(checkpoint.path),
        "trust_remote_code": settings.trust_remote_code,
        "tensor_parallel_size": asked.tensor_parallel_size,
        "pipeline_parallel_size": asked.pipeline_parallel_size,
        "distributed_executor_backend": asked.distributed_executor_backend,
        "gpu_memory_utilization": asked.gpu_memory_utilization,
        # -1: as many as the model was made for and memory holds.
        "max_model_len": asked.max_model_len or -1,
        "enable_prefix_caching": asked.enable_prefix_caching,
        "enforce_eager": asked.enforce_eager,
        "device_ids": list(device_ids) or None,
        "max_logprobs": MOST_LOGPROBS,
        "seed": SEED,
        "use_tqdm_on_load": False,
        "worker_extension_cls": "gate.backends.vllm_worker.Worker",
        **(settings.runtime_quantization.by_vllm if settings.runtime_quantization else {}),
    }
    return {name: value for name, value in given.items() if value is not None}


def described(engine: Engine, asked: Vllm) -> str:
    """How an engine computes, in words."""
    layers = [name for name in engine.kernels if not name.startswith("Unquantized")]
    parts = [
        f"vLLM's kernels: {', '.join(layers) or 'unquantized'}",
        f"attention by {', '.join(engine.attention) or 'no name'}",
    ]
    if engine.kv_cache_dtype != "auto":
        parts.append(f"KV cache in {engine.kv_cache_dtype}")
    if asked.gpus > 1:
        sizes = {
            "tensor": asked.tensor_parallel_size,
            "pipeline": asked.pipeline_parallel_size,
            "data": asked.data_parallel_size,
        }
        parts += [f"{kind} parallel by {size}" for kind, size in sizes.items() if size > 1]
    return "; ".join(parts)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """What vLLM raises while it runs becomes our own error.

    Raises:
        BackendError: It refuses what it was asked, or its processes died.
    """
    from vllm.exceptions import VLLMClientError, VLLMServerError

    try:
        yield
    except (VLLMClientError, ValueError) as error:
        raise BackendError(
            f"vLLM refuses what it is asked: {_first_line(error)}",
            "Mend what it names: the task in quant-gate.yaml, or vllm.max_model_len.",
        ) from error
    except (VLLMServerError, RuntimeError) as error:
        raise BackendError(
            f"vLLM's engine ended while it answered: {_first_line(error)}",
            "Look at its messages above; where memory ran out, lower "
            "vllm.gpu_memory_utilization. Finished batches are kept.",
        ) from error


def _started(checkpoint: Checkpoint, given: Mapping[str, Any]) -> Any:
    """One engine; its processes write to standard error, where this one's results are not."""
    import vllm
    from vllm.exceptions import VLLMError

    with terminal.output_to_errors():
        try:
            return vllm.LLM(**given)
        except (OSError, ValueError, RuntimeError, NotImplementedError, VLLMError) as error:
            message = f"vLLM cannot load {checkpoint.source}: {_first_line(error)}"
    if any(words in message.lower() for words in MEMORY):
        raise OutOfMemoryError(
            message,
            "Raise vllm.tensor_parallel_size, lower vllm.max_model_len, or free the GPU.",
        )
    raise BackendUnavailableError(message, "Look at its messages above, or use backend: hf.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return plain(lines[0] if lines else type(error).__name__, limit=QUOTED_CHARS)


def _named(workers: Iterator[Sequence[str]]) -> tuple[str, ...]:
    """What the workers name, each once."""
    return tuple(sorted({plain(name, limit=200) for names in workers for name in names}))
